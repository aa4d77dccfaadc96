package main

import (
	"github.com/spf13/cobra"

	"dormouse/store/alone"
	"dormouse/store/bucket"
)

// addAloneFlag adds the flag with which a command needs nothing but the bucket.
func addAloneFlag(cmd *cobra.Command) {
	cmd.Flags().Bool("no-nats", false, "read the bucket of --archive alone, without NATS: what was committed up to now, "+
		"and what a worker may have put since")
}

// aloneOf returns the archive that --no-nats and --archive mean, nil without the former, and what closes it.
func aloneOf(cmd *cobra.Command) (a *alone.Archive, shut func(), err error) {
	url, wanted, err := aloneURL(cmd)
	if err != nil || !wanted {
		return nil, func() {}, err
	}
	b, err := bucket.OpenToRead(cmd.Context(), url)
	if err != nil {
		return nil, nil, err
	}
	shut = func() { _ = b.Close() } // only read from
	if a, err = alone.Open(cmd.Context(), b); err != nil {
		shut()
		return nil, nil, err
	}
	return a, shut, nil
}

// natsFlags say which NATS to talk to.
var natsFlags = []string{"nats-url", "nats-context", "nats-creds"}

// aloneURL returns the URL of --archive when --no-nats is given.
func aloneURL(cmd *cobra.Command) (url string, wanted bool, err error) {
	wanted, err = cmd.Flags().GetBool("no-nats")
	if err != nil || !wanted {
		return "", false, err
	}
	for _, name := range natsFlags {
		if cmd.Flags().Changed(name) {
			return "", false, usageErrorf("give either --no-nats or --%s, not both", name)
		}
	}
	if url = archiveURL(cmd); url == "" {
		return "", false, usageErrorf("--no-nats needs --archive: without NATS nobody says where the bucket is")
	}
	return url, true, nil
}

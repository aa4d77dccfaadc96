package main

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/topology"
	"dormouse/internal/wire"
)

const checkTimeout = 30 * time.Second

// checkReport is what provision --check prints.
type checkReport struct {
	Problems []string `json:"problems"`
	Warnings []string `json:"warnings"`
	provisionReport
}

// check looks for all that provision makes and that operators have to add, and makes nothing.
func (p *provisioning) check(cmd *cobra.Command, nc *nats.Conn, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), checkTimeout)
	defer cancel()
	cfg := p.Config
	if !cmd.Flags().Changed("requeue-after") {
		cfg.RequeueAfter = 0
	}
	if !cmd.Flags().Changed("lease") {
		cfg.Lease = 0
	}
	sources, warnings, problems, err := topology.Check(ctx, js, cfg)
	if err != nil {
		return err
	}
	mapping, err := topology.ProbeTenants(ctx, nc, sources, topology.MaxShards, true)
	if err != nil {
		return err
	}
	r := checkReport{provisionReport: provisioned(sources, sources), Warnings: warnings, Problems: []string{}}
	for _, problem := range append(problems, mapping...) {
		r.Problems = append(r.Problems, wire.Printable(problem))
	}
	if p.output.value == "json" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), unescaped(r, "  "))
	} else {
		err = r.print(cmd, len(mapping) > 0)
	}
	if err != nil {
		return err
	}
	return problemsError(r.Problems)
}

// print writes what is wrong and what there is; what is to be added only if that is missing.
func (r checkReport) print(cmd *cobra.Command, addMapping bool) error {
	w := cmd.OutOrStdout()
	for _, warning := range r.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "dormouse: warning: %s\n", warning)
	}
	for _, problem := range r.Problems {
		if _, err := fmt.Fprintln(w, "PROBLEM:", problem); err != nil {
			return err
		}
	}
	if addMapping {
		return r.provisionReport.print(w)
	}
	if err := r.table(w); err != nil || len(r.Problems) > 0 {
		return err
	}
	_, err := fmt.Fprintln(w, "\nAll streams are there, and what tenants publish goes where it must.")
	return err
}

// probeApart probes with a connection of its own, which may be refused to publish.
func probeApart(cmd *cobra.Command, sources []topology.Source) ([]string, error) {
	t, err := targetOf(cmd)
	if err != nil {
		return nil, err
	}
	nc, _, err := t.dial("dormouse "+cmd.Name(), func(error) {},
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return topology.ProbeTenants(cmd.Context(), nc, sources, mostProbes, false)
}

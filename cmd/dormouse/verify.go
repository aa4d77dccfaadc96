package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/store/client"
	"dormouse/store/verify"
)

func newVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [LOGID]",
		Short: "Read segments again and compare them with the record of them",
		Long: `Verify reads every segment of the archive, or those of one log, and checks block checksums, the order and
number of entries, and that the extents of each log follow each other without overlap. It exits 1 naming
each object that is bad, or that the bucket does not give.`,
		Example: `  dormouse verify
  dormouse verify acme.web
  dormouse verify --no-nats --archive 's3://logs/prod?region=eu-central-1'`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			log := ""
			if len(args) > 0 {
				if log = args[0]; logid.Validate(log) != nil {
					return usageError{logid.Validate(log)}
				}
			}
			return verifyArchive(cmd, log)
		},
	}
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket to verify (default: the one that the server names)")
	addAloneFlag(cmd)
	return cmd
}

func verifyArchive(cmd *cobra.Command, log string) error {
	bad := func(err error) { fmt.Fprintf(cmd.ErrOrStderr(), "dormouse: %s\n", redact(err.Error())) }
	bucketAlone, shut, err := aloneOf(cmd)
	if err != nil {
		return err
	}
	if bucketAlone != nil {
		defer shut()
		show, end := progress(cmd, "verifying")
		report, err := bucketAlone.Verify(cmd.Context(), log, bad, show)
		end()
		if err != nil {
			return err
		}
		return tellVerified(cmd, report)
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx := cmd.Context()
	owners := client.New(nc, js)
	named, err := owners.Archive(ctx)
	if err != nil {
		return err
	}
	bucket, err := openArchive(ctx, cmd, named)
	if err != nil {
		return err
	}
	defer func() { _ = bucket.Close() }() // only read from

	v := &verify.Verifier{Client: owners, Bucket: bucket, Bad: bad}
	show, end := progress(cmd, "verifying")
	v.Progress = show
	report, err := v.Verify(ctx, log)
	end()
	if err != nil {
		return anotherWay(cmd, err)
	}
	return tellVerified(cmd, report)
}

// tellVerified prints what a verification has found.
func tellVerified(cmd *cobra.Command, report verify.Report) error {
	fmt.Fprintf(cmd.OutOrStdout(), "verified %d segments, %d extents, %d entries: %d bad", report.Segments, report.Extents,
		report.Entries, report.Bad)
	if report.Unread > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), ", %d not read", report.Unread)
	}
	fmt.Fprintln(cmd.OutOrStdout())
	var errs []error
	if report.Bad > 0 {
		errs = append(errs, fmt.Errorf("%d objects or logs are bad, see above", report.Bad))
	}
	if report.Unread > 0 {
		errs = append(errs, fmt.Errorf("%d objects could not be read, see above: they may be sound, verify again",
			report.Unread))
	}
	return errors.Join(errs...)
}

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/identity"
	"dormouse/store/verify"
)

func newVerifyCommand() *cobra.Command {
	var absent string
	cmd := &cobra.Command{
		Use:   "verify [LOGID]",
		Short: "Read segments again and compare them with the record of them",
		Long: `Verify reads every segment of the archive, or those of one log, and checks block checksums, the order and
number of entries, and that the extents of each log follow each other without overlap. It exits 1 naming
each object that is bad, or that the bucket does not give.

With --absent it reads the table of contents of every segment in the bucket instead, live or not, and exits 1 if one
holds an entry of a log, or of any log below a prefix: the proof of a deletion.`,
		Example: `  dormouse verify
  dormouse verify acme.web
  dormouse verify --absent 'acme.>'
  dormouse verify --no-nats --archive 's3://logs/prod?region=eu-central-1'`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if absent != "" {
				if len(args) > 0 {
					return usageErrorf("give either LOGID or --absent, not both")
				}
				if err := validatePattern(absent); err != nil {
					return usageErrorf("--absent: %w", err)
				}
				return verifyAbsent(cmd, absent)
			}
			log := ""
			if len(args) > 0 {
				if log = args[0]; logid.Validate(log) != nil {
					return usageError{logid.Validate(log)}
				}
			}
			return verifyArchive(cmd, log)
		},
	}
	cmd.Flags().StringVar(&absent, "absent", "", "prove that no object holds an entry of a `LOGID`, or of 'PREFIX.>'")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket to verify (default: the one that the server names)")
	addAloneFlag(cmd)
	return cmd
}

// verifyAbsent proves that no object holds an entry of what a pattern covers.
func verifyAbsent(cmd *cobra.Command, pattern string) error {
	b, shut, err := bucketOf(cmd)
	if err != nil {
		return err
	}
	defer shut()
	show, end := progress(cmd, "looking")
	var objects uint64
	keys, err := alone.Find(cmd.Context(), b, alone.Everything(pattern), func(done, total uint64) {
		objects = total
		show(done, total)
	})
	end()
	if err != nil {
		return err
	}
	for _, key := range keys {
		fmt.Fprintf(cmd.ErrOrStderr(), "dormouse: object %s holds entries of %s\n", key, pattern)
	}
	if len(keys) > 0 {
		return fmt.Errorf("%d of %d objects hold entries of %s", len(keys), objects, pattern)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "none of %d objects holds an entry of %s\n", objects, pattern)
	return nil
}

// bucketOf opens the bucket of --archive or, unless --no-nats is given, the one that the server names.
func bucketOf(cmd *cobra.Command) (b *bucket.Bucket, shut func(), err error) {
	url, alone, err := aloneURL(cmd)
	if err != nil {
		return nil, nil, err
	}
	if alone {
		b, err = bucket.OpenToRead(cmd.Context(), url)
	} else {
		b, err = namedBucket(cmd)
	}
	return b, func() { _ = b.Close() }, err // only read from
}

// namedBucket opens the bucket that the server names, or --archive as another way to it.
func namedBucket(cmd *cobra.Command) (*bucket.Bucket, error) {
	owners, shut, err := ownersOf(cmd)
	if err != nil {
		return nil, err
	}
	defer shut()
	named, err := owners.Archive(cmd.Context())
	if err != nil {
		return nil, err
	}
	b, err := openArchive(cmd.Context(), cmd, named)
	if err != nil {
		return nil, err
	}
	if err := identity.Verify(cmd.Context(), owners.JS(), b); err != nil {
		return nil, errors.Join(anotherWay(cmd, err), b.Close())
	}
	return b, nil
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
	owners, shutOwners, err := ownersOf(cmd)
	if err != nil {
		return err
	}
	defer shutOwners()
	ctx := cmd.Context()
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

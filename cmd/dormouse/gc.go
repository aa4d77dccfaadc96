package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/store/client"
)

func newGCCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete now what nothing names in the bucket",
		Long: `Gc has the owner of each shard do at once what it does by itself now and then: delete the objects that nothing
names and whose grace (serve --gc-grace) is over, such as segments that a worker put and died before they were
committed, and write the segments anew that have something of what was deleted. --dry-run only says what and why.`,
		Example: `  dormouse gc --dry-run
  dormouse gc`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return collectGarbage(cmd, dryRun) },
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted or written anew")
	addConnectFlags(cmd)
	return cmd
}

func collectGarbage(cmd *cobra.Command, dryRun bool) error {
	owners, shut, err := ownersOf(cmd)
	if err != nil {
		return err
	}
	defer shut()
	ctx := cmd.Context()
	sources, err := owners.Sources(ctx)
	if err != nil {
		return err
	}
	for _, source := range sources {
		found, err := owners.Sweep(ctx, source.Shard, wire.SweepRequest{DryRun: dryRun})
		if err != nil {
			return err
		}
		if !dryRun && found.Objects+found.Uncut > 0 {
			if err := awaitSwept(ctx, cmd, owners, source.Shard); err != nil {
				return err
			}
		}
		tellSwept(cmd, source.Shard, found, dryRun)
	}
	return nil
}

// awaitSwept waits until an owner has deleted what nothing names, and has written anew what is to be.
func awaitSwept(ctx context.Context, cmd *cobra.Command, owners *client.Client, shard shardid.Shard) error {
	step, end := steps(cmd)
	defer end()
	for said := ""; ; {
		left, err := owners.Sweep(ctx, shard, wire.SweepRequest{DryRun: true})
		if err != nil || left.Objects+left.Uncut == 0 {
			return err
		}
		if now := fmt.Sprintf("shard %s: %d objects to delete, %d to write anew", shard, left.Objects,
			left.Uncut); now != said {
			step(now)
			said = now
		}
		if err := sleep(ctx, 2*time.Second); err != nil {
			return err
		}
	}
}

// tellSwept prints what became of a shard's garbage.
func tellSwept(cmd *cobra.Command, shard shardid.Shard, found wire.SweepReply, dryRun bool) {
	deleted, written := "were deleted", "were written anew"
	if dryRun {
		deleted, written = "would be deleted", "would be written anew"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "shard %s: %d objects (%s) that nothing names and whose grace is over %s\n", shard,
		found.Objects, humanize.IBytes(found.Bytes), deleted)
	if found.Uncut > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "shard %s: %d live segments with something of what was deleted %s\n", shard,
			found.Uncut, written)
	}
	if found.Waiting > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "shard %s: %d objects that nothing names yet, or any more, stay for their grace\n",
			shard, found.Waiting)
	}
}

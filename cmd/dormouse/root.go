package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in release builds.
var version = ""

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}

// usageError is an error of the command line or the configuration; it makes the exit code 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// usageArgs makes the errors of an argument check usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "dormouse",
		Short: "Archive very many small logs from NATS JetStream into object storage, and read them back",
		Long: `Dormouse archives very many small logs from NATS JetStream into object storage and reads them back.

Tenants publish to logs.<tenant>.<log...> with any NATS client. A log that is not being written costs nothing;
within its delay bound, an entry is in the archive, packed together with the entries of hundreds of other logs.

Every flag can be given as the environment variable DORMOUSE_<FLAG> (dashes become underscores) and as a key of
the YAML file named by --config; the flag wins over the environment, and that over the file.`,
		Version:           buildVersion(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              usageArgs(cobra.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return loadConfig(cmd) },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().String("config", "", "YAML `FILE` with flag names as keys")
	root.AddCommand(
		newServeCommand(), newProvisionCommand(), newPublishCommand(), newReadCommand(), newLsCommand(), newStatCommand(),
		newVerifyCommand(), newDeleteCommand(), newPolicyCommand(), newGCCommand(), newRebuildCommand(), newStatusCommand(),
		newBenchCommand(),
		&cobra.Command{
			Use: "version", Short: "Print the version", Args: usageArgs(cobra.NoArgs),
			Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), buildVersion()) },
		},
	)
	return root
}

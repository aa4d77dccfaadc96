package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagGroup is a part of a command's flags that are about one thing.
type flagGroup struct {
	title string
	names []string
}

// serveFlags are the groups of serve's flags, in the order of --help and of README's table.
var serveFlags = []flagGroup{
	{"Data", []string{"data", "nats-url", "nats-context", "nats-creds", "nats-listen", "shards", "replicas"}},
	{"Archive", []string{"archive", "compression", "segment-bytes", "gc-grace"}},
	{"Timing", []string{"max-delay", "max-bytes", "requeue-after", "lease", "grace"}},
	{"Durability", []string{"trim", "trim-delay", "sync-interval", "sync-always"}},
	{"Tuning", []string{"workers", "merge-share", "linger", "buffer-limit", "tick"}},
	{"Process", []string{"roles", "http", "log-format", "log-level", "config"}},
}

// usageOfGroups is cobra's usage with the flags in groups. What is in none of them comes last.
func usageOfGroups(groups []flagGroup) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		out := cmd.OutOrStderr()
		fmt.Fprintf(out, "Usage:\n  %s\n\nExamples:\n%s\n", cmd.UseLine(), cmd.Example)
		rest := pflag.NewFlagSet("", pflag.ContinueOnError)
		rest.AddFlagSet(cmd.LocalFlags())
		rest.AddFlagSet(cmd.InheritedFlags())
		grouped := make(map[string]bool)
		for _, group := range groups {
			flags := pflag.NewFlagSet(group.title, pflag.ContinueOnError)
			flags.SortFlags = false
			for _, name := range group.names {
				flags.AddFlag(rest.Lookup(name))
				grouped[name] = true
			}
			fmt.Fprintf(out, "\n%s:\n%s", group.title, flags.FlagUsages())
		}
		other := pflag.NewFlagSet("", pflag.ContinueOnError)
		rest.VisitAll(func(f *pflag.Flag) {
			if !grouped[f.Name] {
				other.AddFlag(f)
			}
		})
		fmt.Fprintf(out, "\nOther:\n%s", other.FlagUsages())
		return nil
	}
}

// saysDefault is how a flag tells a default that depends on others.
var saysDefault = regexp.MustCompile(`^(.*) \(default (.*)\)$`)

// otherDefaults are defaults that depend on the machine, or are another one than in other commands.
var otherDefaults = map[string]string{"workers": "2 x CPUs", "nats-url": "the embedded server"}

// flagTable is the table of a command's flags in Markdown, in groups.
func flagTable(cmd *cobra.Command, groups []flagGroup) string {
	var b strings.Builder
	b.WriteString("| flag | default | |\n| --- | --- | --- |\n")
	for _, group := range groups {
		fmt.Fprintf(&b, "| **%s** | | |\n", group.title)
		for _, name := range group.names {
			flag := cmd.Flag(name)
			if flag == nil {
				flag = cmd.InheritedFlags().Lookup(name)
			}
			kind, usage := pflag.UnquoteUsage(flag)
			if _, ok := flag.Value.(*choice); ok || kind == "duration" || kind == "strings" {
				kind = ""
			}
			value := "`" + strings.NewReplacer("m0s", "m", ".0MiB", "MiB").Replace(strings.Trim(flag.DefValue, "[]")) + "`"
			if flag.DefValue == "" || flag.DefValue == "false" {
				value = ""
			}
			if found := saysDefault.FindStringSubmatch(usage); found != nil {
				usage, value = found[1], found[2]
			}
			if other, ok := otherDefaults[name]; ok {
				value = other
			}
			if c, ok := flag.Value.(*choice); ok {
				usage += ": `" + strings.Join(c.allowed, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.TrimSpace("--"+name+" "+kind), value, usage)
		}
	}
	return b.String()
}

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envPrefix of the variables that stand for flags.
const envPrefix = "DORMOUSE"

// loadConfig gives every flag that was not on the command line its value from the environment or the configuration
// file. The file is shared by all commands: a key is wrong only if it is no flag of any of them.
func loadConfig(cmd *cobra.Command) error {
	if err := checkVariables(cmd.Root(), os.Environ()); err != nil {
		return err
	}
	v := viper.New()
	v.SetEnvPrefix(envPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return err
	}
	if path == "" {
		path = os.Getenv(envPrefix + "_CONFIG")
	}
	if path != "" {
		v.SetConfigFile(path)
		v.SetConfigType("yaml")
		if err := v.ReadInConfig(); err != nil {
			return usageErrorf("configuration file %s: %w", path, withoutQuotes(err))
		}
		if err := checkKeys(cmd.Root(), path, v.AllKeys()); err != nil {
			return err
		}
	}
	var failed error
	alone := cmd.Flags().Changed("no-nats") // on the command line, which wins over a NATS in the environment
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if alone && slices.Contains(natsFlags, f.Name) || isOnlyOnLine(f) {
			return
		}
		if failed != nil || f.Changed || !v.IsSet(f.Name) || f.Name == "help" || f.Name == "config" {
			return
		}
		switch v.Get(f.Name).(type) {
		case []any, map[string]any:
			if f.Value.Type() != "stringSlice" {
				failed = usageErrorf("%s in the configuration file: want one value", f.Name)
				return
			}
		}
		value := v.GetString(f.Name)
		if list := v.GetStringSlice(f.Name); f.Value.Type() == "stringSlice" {
			value = strings.Join(list, ",")
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			failed = usageErrorf("%s from %s_%s or the configuration file: %w", f.Name, envPrefix,
				strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), err)
		}
	})
	return failed
}

// quoted is how the YAML library shows parts of values.
var quoted = regexp.MustCompile("`[^`]*`")

// withoutQuotes hides the values in an error of the configuration file, one of which may have a password.
func withoutQuotes(err error) error {
	if text := quoted.ReplaceAllString(err.Error(), hidden); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// checkKeys refuses keys that no command has a flag for: a misspelt setting must not be ignored.
func checkKeys(root *cobra.Command, path string, keys []string) error {
	known := flagNames(root)
	slices.Sort(keys)
	for _, key := range keys {
		if !known[key] {
			return usageErrorf("configuration file %s: unknown key %q; keys are the names of flags, see 'dormouse serve --help'",
				path, key)
		}
	}
	return nil
}

// lineOnly is the annotation of flags that are taken from the command line alone.
const lineOnly = "dormouse_line_only"

// onlyOnLine has flags of a command taken from the command line alone: those that say what to do this time, or that
// have another meaning than the flags of that name of another command.
func onlyOnLine(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.Flags().SetAnnotation(name, lineOnly, nil); err != nil {
			panic(err) // there is no such flag
		}
	}
}

func isOnlyOnLine(f *pflag.Flag) bool {
	_, ok := f.Annotations[lineOnly]
	return ok
}

// flagNames returns the names of the flags of a command and of all below it that the environment and the configuration
// file may set.
func flagNames(c *cobra.Command) map[string]bool {
	names := make(map[string]bool)
	add := func(f *pflag.Flag) {
		if !isOnlyOnLine(f) {
			names[f.Name] = true
		}
	}
	c.Flags().VisitAll(add)
	c.PersistentFlags().VisitAll(add)
	for _, sub := range c.Commands() {
		maps.Copy(names, flagNames(sub))
	}
	return names
}

// byteSize is a flag value like 8MiB.
type byteSize uint64

func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil {
		return fmt.Errorf("%q is no size: want for example 512KiB, 8MiB or a number of bytes", s)
	}
	if n == 0 {
		return fmt.Errorf("the size must be positive")
	}
	*b = byteSize(n)
	return nil
}

func (b *byteSize) String() string { return strings.ReplaceAll(humanize.IBytes(uint64(*b)), " ", "") }
func (b *byteSize) Type() string   { return "size" }

// choice is a flag value out of a few.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(c.allowed, ", "))
	}
	c.value = s
	return nil
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }

// addChoice adds a flag with a few allowed values, the first of which is its default, and their completion.
func addChoice(cmd *cobra.Command, name, usage string, allowed ...string) *choice {
	c := &choice{value: allowed[0], allowed: allowed}
	cmd.Flags().Var(c, name, usage)
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(allowed,
		cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was added a line above
	}
	return c
}

package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"dormouse/internal/policy"
	"dormouse/internal/wire"
	"dormouse/store/policies"
)

// change is what policy set is to change of a policy.
type change struct{ keep, maxDelay, maxBytes, rate string }

func newPolicySetCommand() *cobra.Command {
	var c change
	var yes bool
	cmd := &cobra.Command{
		Use:   "set PATTERN",
		Short: "Settle something for the logs that a pattern matches",
		Long: `Set changes what a pattern settles: what is given. What is not given stays as it was; "default" takes it out,
so that a wider pattern or the flags of serve say it again.

Entries that are older than --keep are not read any more, and leave the bucket later. So a --keep that is shorter than
it was needs --yes, or your word. "forever" keeps all, whatever a wider pattern says. --rate, in entries a second, is
kept for a later version: it is shown, and not enforced yet.

` + patternHelp + `

These settings are taken from the command line alone: of the same name in the environment or the configuration file are
the flags of serve.`,
		Example: `  dormouse policy set 'iot.*.>' --keep 30d --max-delay 1m
  dormouse policy set acme.audit --keep forever
  dormouse policy set 'iot.*.>' --max-delay default`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completePattern,
		RunE:              func(cmd *cobra.Command, args []string) error { return setPolicy(cmd, args[0], c, yes) },
	}
	f := cmd.Flags()
	f.StringVar(&c.keep, "keep", "", "`TIME` after which entries expire, like 30d, 2w or 12h; or forever")
	f.StringVar(&c.maxDelay, "max-delay", "", "`TIME` from the arrival of a log's first entry to its archive commit "+
		"being due, instead of serve's")
	f.StringVar(&c.maxBytes, "max-bytes", "", "a log with this `SIZE` buffered is ready at once, instead of serve's")
	f.StringVar(&c.rate, "rate", "", "`N` entries a second; not enforced yet")
	f.BoolVar(&yes, "yes", false, "do not ask")
	onlyOnLine(cmd, "keep", "max-delay", "max-bytes", "rate")
	addConnectFlags(cmd)
	return cmd
}

// apply changes a policy, as far as flags were given.
func (c change) apply(p policy.Policy) (policy.Policy, error) {
	duration := func(flag, value string, setting *time.Duration) error {
		switch {
		case value == "":
			return nil
		case value == unsettle:
			*setting = 0
			return nil
		case value == "forever" && flag == "keep":
			*setting = policy.Forever
			return nil
		}
		d, err := policy.ParseDuration(value)
		if err != nil || d == 0 {
			return fmt.Errorf("--%s: %q is no duration: want for example 30d, 2w, 12h, 1m30s, or %s", flag, value, unsettle)
		}
		*setting = d
		return nil
	}
	number := func(flag, value string, setting *uint64, parse func(string) (uint64, error)) error {
		switch value {
		case "":
			return nil
		case unsettle:
			*setting = 0
			return nil
		}
		n, err := parse(value)
		if err == nil && n == 0 {
			err = errors.New("it must be positive")
		}
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*setting = n
		return nil
	}
	size := func(s string) (uint64, error) {
		var b byteSize
		err := b.Set(s)
		return uint64(b), err
	}
	entries := func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			err = fmt.Errorf("%q is no number of entries a second", s)
		}
		return n, err
	}
	return p, errors.Join(duration("keep", c.keep, &p.Keep), duration("max-delay", c.maxDelay, &p.MaxDelay),
		number("max-bytes", c.maxBytes, &p.MaxBytes, size), number("rate", c.rate, &p.Rate, entries))
}

func setPolicy(cmd *cobra.Command, arg string, c change, yes bool) error {
	pattern, err := policy.ParsePattern(arg)
	if err != nil {
		return usageError{err}
	}
	if c == (change{}) {
		return usageErrorf("nothing to settle: give --keep, --max-delay, --max-bytes or --rate")
	}
	if _, err := c.apply(policy.Policy{}); err != nil {
		return usageError{err}
	}
	bucket, all, shut, err := policiesNow(cmd)
	if err != nil {
		return err
	}
	defer shut()
	before, _ := keptFor(all, pattern)
	now, err := c.apply(before.Policy)
	if err != nil {
		return usageError{err}
	}
	if now == (policy.Policy{}) {
		return usageErrorf("nothing would be left of the policy of %s: remove it with 'dormouse policy rm'", pattern)
	}
	if err := now.Validate(); err != nil {
		return usageError{err}
	}
	what, err := consequence(all, pattern, now)
	if err != nil {
		return err
	}
	if what != "" && !yes {
		if err := confirm(cmd, what); err != nil {
			return err
		}
	}
	rule := policy.Rule{Pattern: pattern, Policy: now}
	if err := bucket.Set(cmd.Context(), rule, whoAsks(), before.Revision); err != nil {
		return fmt.Errorf("setting the policy of %s: %w", pattern, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", wire.Printable(string(pattern)), wordsOf(now))
	return err
}

// consequence says what somebody should know before a pattern gets another policy, or the zero one for none; "" is
// nothing. The error says that there is no room for it.
func consequence(all []policies.Kept, pattern policy.Pattern, now policy.Policy) (string, error) {
	before, _, err := policies.InForce(all)
	if err != nil {
		return "", err
	}
	after, err := before.With(pattern, now)
	if err != nil {
		return "", err
	}
	shown := wire.Printable(string(pattern))
	if k, ok := keptFor(all, pattern); ok && k.Fault != nil {
		return fmt.Sprintf("the policy of %s cannot be read here, and all that it says is lost (%v)", shown, k.Fault), nil
	}
	if own(before, pattern).Keep == own(after, pattern).Keep {
		return "", nil
	}
	kept := policy.Forever
	if keep := own(before, pattern).Keep; keep != 0 {
		kept = keep
	}
	if keep, of := keepUnder(after, pattern); keep < kept {
		why := ""
		if of != pattern {
			why = fmt.Sprintf(", as %s says", wire.Printable(string(of)))
		}
		return fmt.Sprintf("of the logs that %s matches, entries older than %s expire%s: they are not read any more, and "+
			"leave the bucket later", shown, policy.FormatDuration(keep), why), nil
	}
	return "", nil
}

// own returns the policy that a pattern has itself.
func own(set *policy.Set, pattern policy.Pattern) policy.Policy {
	for _, r := range set.Rules() {
		if r.Pattern == pattern {
			return r.Policy
		}
	}
	return policy.Policy{}
}

// keepUnder returns how long entries may be kept at the least of logs that a pattern matches, and no better one that
// has a keep, and which pattern says so.
func keepUnder(set *policy.Set, pattern policy.Pattern) (least time.Duration, of policy.Pattern) {
	least = policy.Forever
	for _, k := range set.Keeps() {
		switch {
		case k.Pattern == pattern:
			return k.Keep, pattern
		case policy.Compare(k.Pattern, pattern) > 0 && policy.Overlaps(k.Pattern, pattern) && k.Keep < least:
			least, of = k.Keep, k.Pattern
		}
	}
	return least, of
}

func newPolicyRmCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "rm PATTERN",
		Short: "Remove the policy of a pattern",
		Long: `Rm removes what a pattern settles: a wider pattern, or the flags of serve, say it again. What it was can be
seen for a month with 'dormouse policy ls --history'.`,
		Example:           `  dormouse policy rm 'iot.*.>'`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completePattern,
		RunE:              func(cmd *cobra.Command, args []string) error { return removePolicy(cmd, args[0], yes) },
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	addConnectFlags(cmd)
	return cmd
}

func removePolicy(cmd *cobra.Command, arg string, yes bool) error {
	pattern, err := policy.ParsePattern(arg)
	if err != nil {
		return usageError{err}
	}
	bucket, all, shut, err := policiesNow(cmd)
	if err != nil {
		return err
	}
	defer shut()
	kept, ok := keptFor(all, pattern)
	if !ok {
		return fmt.Errorf("there is no policy of %s (see 'dormouse policy ls')", pattern)
	}
	what, err := consequence(all, pattern, policy.Policy{})
	if err != nil {
		return err
	}
	if what != "" && !yes {
		if err := confirm(cmd, what); err != nil {
			return err
		}
	}
	if err := bucket.Remove(cmd.Context(), pattern, kept.Revision); err != nil {
		return fmt.Errorf("removing the policy of %s: %w", pattern, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: removed\n", wire.Printable(string(pattern)))
	return errors.Join(err, bucket.Forget(cmd.Context(), time.Now().Add(-policies.Forgotten)))
}

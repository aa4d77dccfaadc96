package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/internal/policy"
	"dormouse/internal/wire"
	"dormouse/store/policies"
)

// patternHelp is what the commands say of patterns.
const patternHelp = `A PATTERN is a LogID in which the token * stands for any one token, and a last token > for all
the rest. Patterns are compared token by token from the left: a literal token fits better than *, and that better than
>. Each setting of a log is that of the best pattern which has it, so what 'iot.>' does not settle is as '>' has it;
what none settles is as the flags of serve say.`

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Settle how long entries are kept and may wait, by patterns of LogIDs",
		Long: `Policy settles for many logs at once, while all runs, how long their entries are kept and how long they may
wait for the archive. Every process obeys a change within seconds, and for what waits already too.

` + patternHelp,
		Example: `  dormouse policy set 'iot.*.>' --keep 30d --max-delay 1m
  dormouse policy ls`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPolicySetCommand(), newPolicyLsCommand(), newPolicyRmCommand())
	return cmd
}

// openPolicies connects and opens the bucket of policies.
func openPolicies(cmd *cobra.Command) (*nats.Conn, *policies.Bucket, error) {
	nc, js, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	b, err := policies.Open(cmd.Context(), js)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, b, nil
}

// unsettle takes a setting out of a policy.
const unsettle = "default"

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
	nc, bucket, err := openPolicies(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	all, err := bucket.List(cmd.Context())
	if err != nil {
		return err
	}
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

// keptFor returns what there is of a pattern.
func keptFor(all []policies.Kept, pattern policy.Pattern) (policies.Kept, bool) {
	i := slices.IndexFunc(all, func(k policies.Kept) bool { return k.Pattern == pattern })
	if i < 0 {
		return policies.Kept{}, false
	}
	return all[i], true
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

// String is a policy as people read it.
func (w policyWords) String() string {
	var words []string
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+" "+value)
		}
	}
	add("keep", w.Keep)
	add("max-delay", w.MaxDelay)
	add("max-bytes", sizeWord(w.MaxBytes))
	add("keep-bytes", sizeWord(w.KeepBytes))
	add("rate", numberWord(w.Rate))
	if len(words) == 0 {
		return "nothing is settled"
	}
	return strings.Join(words, ", ")
}

func sizeWord(n uint64) string {
	if n == 0 {
		return ""
	}
	return strings.NewReplacer(".0 ", "", " ", "").Replace(humanize.IBytes(n))
}

func numberWord(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// policyWords is a policy as scripts read it.
type policyWords struct {
	Keep      string `json:"keep,omitempty"` // as --keep takes it
	KeepBytes uint64 `json:"keep_bytes,omitempty"`
	MaxDelay  string `json:"max_delay,omitempty"`
	MaxBytes  uint64 `json:"max_bytes,omitempty"`
	Rate      uint64 `json:"rate,omitempty"`
}

func wordsOf(p policy.Policy) policyWords {
	w := policyWords{KeepBytes: p.KeepBytes, MaxBytes: p.MaxBytes, Rate: p.Rate}
	if p.Keep != 0 {
		w.Keep = policy.FormatDuration(p.Keep)
	}
	if p.MaxDelay != 0 {
		w.MaxDelay = policy.FormatDuration(p.MaxDelay)
	}
	return w
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
	nc, bucket, err := openPolicies(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	all, err := bucket.List(cmd.Context())
	if err != nil {
		return err
	}
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

// completeWithin bounds how long the shell waits for NATS.
const completeWithin = 2 * time.Second

// completePattern completes a pattern by those that have policies.
func completePattern(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	if len(args) > 0 || loadConfig(cmd) != nil { // which cobra does not call here
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
	defer cancel()
	cmd.SetContext(ctx)
	nc, bucket, err := openPolicies(cmd)
	if err != nil {
		return nil, directive
	}
	defer nc.Close()
	all, err := bucket.List(ctx)
	if err != nil {
		return nil, directive
	}
	var patterns []string
	for _, k := range all {
		if p := string(k.Pattern); p != "" && strings.HasPrefix(p, begun) && wire.Printable(p) == p {
			patterns = append(patterns, p)
		}
	}
	return patterns, directive
}

func newPolicyLsCommand() *cobra.Command {
	var output *choice
	var history bool
	cmd := &cobra.Command{
		Use:   "ls [LOGID]",
		Short: "List policies, or those of one log",
		Long: `Ls lists the policies, those that fit best first. With a LOGID it lists those that match, and what comes of
them: for each setting the first that has it. --history shows the last few policies of each pattern, also of those that
were removed, so that a mistake can be taken back with 'dormouse policy set'.

` + patternHelp,
		Example: `  dormouse policy ls
  dormouse policy ls iot.berlin.temperature
  dormouse policy ls --output json | jq '.policies[]'`,
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			log := ""
			if len(args) > 0 {
				if log = args[0]; logid.Validate(log) != nil {
					return usageError{logid.Validate(log)}
				}
			}
			nc, bucket, err := openPolicies(cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			read := bucket.List
			if history {
				read = bucket.History
			}
			all, err := read(cmd.Context())
			if err != nil {
				return err
			}
			report := policiesOf(all, log)
			if log != "" && !history {
				set, _, err := policies.InForce(all)
				if err != nil {
					return err
				}
				p := wordsOf(set.Lookup(log))
				report.Effective = &p
			}
			if output.value == "json" {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), unescaped(report, "  "))
				return err
			}
			return report.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&history, "history", false, "also what the policies were before, and those that were removed")
	output = addChoice(cmd, "output", "output format", "table", "json")
	addConnectFlags(cmd)
	return cmd
}

// policyReport is what policy ls prints; its JSON form is for scripts.
type policyReport struct {
	Policies []policyRow `json:"policies"`
	Log      string      `json:"log,omitempty"`
	// Effective is what comes of all policies for Log.
	Effective *policyWords `json:"effective,omitempty"`
}

type policyRow struct {
	Pattern string `json:"pattern"`
	policyWords
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
	Removed bool      `json:"removed,omitempty"`
	Fault   string    `json:"fault,omitempty"` // why it cannot be read
}

// policiesOf reports all policies, or those that match a log.
func policiesOf(all []policies.Kept, log string) policyReport {
	r := policyReport{Policies: []policyRow{}, Log: log}
	for _, k := range all {
		if log != "" && (k.Pattern == "" || !k.Pattern.Matches(log)) {
			continue
		}
		row := policyRow{Pattern: string(k.Pattern), policyWords: wordsOf(k.Policy), By: k.By, At: k.At.UTC(),
			Removed: k.Removed}
		if k.Fault != nil {
			row.Fault = k.Fault.Error()
		}
		r.Policies = append(r.Policies, row)
	}
	return r
}

// print writes a table for people.
func (r policyReport) print(w io.Writer) error {
	dash := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PATTERN\tKEEP\tMAX-DELAY\tMAX-BYTES\tRATE\tSET\tBY\t")
	for _, p := range r.Policies {
		note := ""
		switch {
		case p.Fault != "":
			note = "cannot be read, and nothing of its logs expires: " + wire.Printable(p.Fault)
		case p.Removed:
			note = "removed"
		case p.KeepBytes > 0:
			note = "keep-bytes " + sizeWord(p.KeepBytes)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(wire.Printable(p.Pattern)), dash(p.Keep),
			dash(p.MaxDelay), dash(sizeWord(p.MaxBytes)), dash(numberWord(p.Rate)), p.At.Format(time.DateTime),
			dash(wire.Printable(p.By)), note)
	}
	if err := t.Flush(); err != nil || r.Effective == nil { // tabwriter reports the errors of the writes here
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %s\n", wire.Printable(r.Log), r.Effective)
	return err
}

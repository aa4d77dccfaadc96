package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

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

// policiesNow returns the bucket of policies and what is in it.
func policiesNow(cmd *cobra.Command) (bucket *policies.Bucket, all []policies.Kept, shut func(), err error) {
	nc, bucket, err := openPolicies(cmd)
	if err != nil {
		return nil, nil, nil, err
	}
	if all, err = bucket.List(cmd.Context()); err != nil {
		nc.Close()
		return nil, nil, nil, err
	}
	return bucket, all, nc.Close, nil
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

// keptFor returns what there is of a pattern.
func keptFor(all []policies.Kept, pattern policy.Pattern) (policies.Kept, bool) {
	i := slices.IndexFunc(all, func(k policies.Kept) bool { return k.Pattern == pattern })
	if i < 0 {
		return policies.Kept{}, false
	}
	return all[i], true
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

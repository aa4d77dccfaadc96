package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/store/manifest"
)

// provisioning is what the flags of provision say.
type provisioning struct {
	topology.Config
	add    []string // NAME or NAME=PREFIX
	skip   []string // SHARD:SEQUENCE
	look   bool     // and make nothing
	output *choice
}

func newProvisionCommand() *cobra.Command {
	p := &provisioning{}
	cmd := &cobra.Command{
		Use:   "provision",
		Short: "Make a system's streams, and print the account mapping that spreads tenants over shards",
		Long: `Provision makes what is missing of a system on a NATS server or cluster: the source streams (shards), the
queue, the manifest, the leases. What exists is checked and left as it is, so that it can be run again.

With --shards above 1 tenants are spread over so many streams. Servers do that by a subject mapping of the account,
which provision prints, to be added to their configuration or to the account's JWT; until then nothing takes what is
published below logs. The number is fixed when the shards are made.

With --add-stream a stream that exists becomes a shard: its messages are archived, under the LogID that follows the
prefix of the subject under which they are stored, which a subject transform may have changed. A prefix under which
there never was a log is put right by adding the stream again with another one: it is archived anew then, from its
beginning. Dormouse does not trim such a stream, unless serve is told --trim always. A tenant must be in one shard only.

With --skip it makes nothing: it moves one message that a shard does not get past, as the log, /readyz and dormouse
status name it, from the shard's stream to DORMOUSE_REJECTED, whole and with the reason "skipped by an operator". The
owner, if one runs, steps over it at once. What is archived, or taken in, is refused.

With --check it makes nothing. It checks that all is there, and where what tenants publish goes: to
logs.dormouse-check-... it publishes a message for each shard that expects a stream which does not exist, so that the
stream which would have stored it refuses it. Exit codes: 0 all is well, 1 there are problems, which come first, with
what to add, 2 wrong usage.`,
		Example: `  dormouse provision --shards 8 --replicas 3 --nats-context prod
  dormouse provision --add-stream ORDERS --add-stream METRICS=edge.metrics
  dormouse provision --check --nats-context prod
  dormouse provision --output json | jq -r .mapping.to
  dormouse provision --skip 0:1234`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.run(cmd) },
	}
	f := cmd.Flags()
	f.IntVar(&p.Shards, "shards", 0, "source streams that tenants are spread over, fixed when they are made (default "+
		"what there is, or 1)")
	f.IntVar(&p.Replicas, "replicas", 1, "replicas of the streams that are made: 1, 3 or 5")
	f.StringSliceVar(&p.add, "add-stream", nil, "make an existing stream a shard: NAME, or NAME=PREFIX with what stands "+
		"before the LogIDs; repeatable")
	f.StringSliceVar(&p.skip, "skip", nil, "put one message aside that a shard does not get past: SHARD:SEQUENCE; "+
		"repeatable")
	f.BoolVar(&p.look, "check", false, "make nothing, and check that all is there and that tenants' entries go where "+
		"they must")
	f.DurationVar(&p.RequeueAfter, "requeue-after", time.Minute, "as in serve")
	f.DurationVar(&p.Lease, "lease", 10*time.Second, "as in serve")
	p.output = addChoice(cmd, "output", "output format", "text", "json")
	addConnectFlags(cmd)
	return cmd
}

func (p *provisioning) run(cmd *cobra.Command) error {
	if err := errors.Join(checkSystem(p.Replicas, p.Shards),
		checkBounds(sharedBounds(p.RequeueAfter, p.Lease)...)); err != nil {
		return usageError{err}
	}
	if p.look && len(p.add)+len(p.skip) > 0 {
		return usageErrorf("give --check without --add-stream and --skip: it changes nothing")
	}
	if len(p.skip) > 0 {
		return skipMessages(cmd, p.skip)
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	if p.look {
		return p.check(cmd, nc, js)
	}
	ctx := cmd.Context()
	p.HasArchive = func(ctx context.Context, shard shardid.Shard) (bool, error) { return hasArchive(ctx, js, shard) }
	warn := func(what string, err error) { fmt.Fprintf(cmd.ErrOrStderr(), "dormouse: warning: %s: %v\n", what, err) }
	list := func() ([]topology.Source, error) {
		return retryStreams(ctx, provisionPatience, warn, func() ([]topology.Source, error) {
			return topology.Sources(ctx, js)
		})
	}
	before, err := list()
	if err != nil {
		return err
	}
	warnings, err := retryStreams(ctx, provisionPatience, warn, func() ([]string, error) { return p.make(ctx, js) })
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "dormouse: warning: %s\n", w)
	}
	sources, err := list()
	if err != nil {
		return err
	}
	report := provisioned(before, sources)
	if p.output.value == "json" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), unescaped(report, "  "))
		return err
	}
	return report.print(cmd.OutOrStdout())
}

// provisionPatience bounds the wait for a cluster that is still starting. What was made by then is not made again.
const provisionPatience = 30 * time.Second

// make makes what is missing. It can be done again after it failed half-way.
func (p *provisioning) make(ctx context.Context, js jetstream.JetStream) (warnings []string, err error) {
	if p.Shards > 0 { // else last, so that a system of users' streams alone gets no stream of ours
		if _, err := topology.Ensure(ctx, js, p.Config); err != nil {
			return nil, err
		}
	}
	for _, stream := range p.add {
		name, prefix, _ := strings.Cut(stream, "=")
		if err := topology.AddSource(ctx, js, name, prefix, p.Config); err != nil {
			return nil, err
		}
	}
	return topology.Ensure(ctx, js, p.Config)
}

// hasArchive reports whether anything of a shard is archived.
func hasArchive(ctx context.Context, js jetstream.JetStream, shard shardid.Shard) (archived bool, err error) {
	m, err := manifest.Open(ctx, js, shard)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	last, _ := m.Last()
	if last.Checkpoint != nil || last.CheckpointSeq > 0 {
		return true, nil
	}
	err = manifest.Scan(ctx, js, shard, manifest.Mark{}, m.Mark(), func(_, _ uint64, r manifest.Record) error {
		archived = archived || len(r.Segments) > 0
		return nil
	})
	return archived, err
}

// provisionReport is what provision prints.
type provisionReport struct {
	Shards  []provisionedShard `json:"shards"`
	Mapping *topology.Mapping  `json:"mapping,omitempty"` // that the account needs
	// JWT is the part of the account's claims ("nats") that says the same.
	JWT *mappingClaims `json:"jwt,omitempty"`
}

type provisionedShard struct {
	Shard  shardid.Shard `json:"shard"`
	Stream string        `json:"stream"`
	Prefix string        `json:"prefix"`
	Trims  bool          `json:"managed"`
	New    bool          `json:"new"`
}

type mappingClaims struct {
	Mappings map[string][]mappingTarget `json:"mappings"`
}

type mappingTarget struct {
	Subject string `json:"subject"`
	Weight  int    `json:"weight"`
}

func provisioned(before, after []topology.Source) (r provisionReport) {
	known := make(map[string]bool)
	for _, s := range before {
		known[s.Stream] = true
	}
	for _, s := range after {
		r.Shards = append(r.Shards, provisionedShard{s.Shard, s.Stream, s.Prefix, s.Managed, !known[s.Stream]})
	}
	if n := topology.Partitions(after); n > 0 {
		m := topology.PartitionMapping(n)
		r.Mapping = &m
		r.JWT = &mappingClaims{map[string][]mappingTarget{m.From: {{m.To, 100}}}}
	}
	return r
}

// table writes which shards there are.
func (r provisionReport) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tSTREAM\tTAKES\tTRIMMED\tWAS")
	for _, s := range r.Shards {
		trimmed, was := "no", "there"
		if s.Trims {
			trimmed = "yes"
		}
		if s.New {
			was = "made"
		}
		fmt.Fprintf(t, "%s\t%s\t%s.>\t%s\t%s\n", s.Shard, s.Stream, s.Prefix, trimmed, was)
	}
	return t.Flush() // tabwriter reports the errors of the writes here
}

func (r provisionReport) print(w io.Writer) error {
	if err := r.table(w); err != nil {
		return err
	}
	if r.Mapping == nil {
		_, err := fmt.Fprintln(w, "\nTenants are not spread over shards: no account mapping is needed.")
		return err
	}
	_, err := fmt.Fprintf(w, `
Servers spread the tenants over the shards by this subject mapping. The server that dormouse serve embeds has it
already.

In the configuration of the servers, at the top or, with accounts, inside of the account (then nats-server --signal
reload):

  mappings = {
    %[1]q: %[2]q
  }

In an account's JWT, with nsc (then nsc push), or as a part of its claims:

  nsc add mapping --name ACCOUNT --from '%[1]s' --to '%[2]s'
  %[3]s
`, r.Mapping.From, r.Mapping.To, unescaped(r.JWT, ""))
	return err
}

// unescaped is JSON that shows the > of subjects as it is.
func unescaped(v any, indent string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		panic(err) // of strings and numbers
	}
	return strings.TrimSuffix(b.String(), "\n")
}

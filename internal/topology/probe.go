package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// A probe is a message to where tenants publish, that no stream takes: it says that it expects a stream of a name that
// there is not. Whoever would have stored it refuses it, under his own name. It has no payload.
const (
	probeTenant = "dormouse-check-"
	probeLog    = "probe.0"               // with a token more than the least
	probeStream = "DORMOUSE_CHECK_NOBODY" // never made
)

const (
	probeTimeout = 3 * time.Second
	probeSilence = 200 * time.Millisecond // after the last first answer: another stream may take it too
)

// ProbeTenants publishes a probe for each of up to most shards over which the tenants are spread, or for the one stream
// of all tenants, and returns what is wrong with where they go; nothing is stored. With follow it also listens where
// the mapping has to send them, and so sees whether the rest of the subject is kept. Sources without such shards are
// not probed: what is published to a user's stream is the user's.
//
// The error says that probes could not be published.
func ProbeTenants(ctx context.Context, nc *nats.Conn, sources []Source, most int, follow bool) (problems []string,
	err error) {
	p := prober{nc: nc, probes: probesFor(sources, most)}
	if len(p.probes) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := p.run(ctx, follow && Partitions(sources) > 0); err != nil {
		return nil, fmt.Errorf("probing where tenants' entries go: %w", err)
	}
	return p.problems(Partitions(sources), follow && Partitions(sources) > 0), nil
}

// probe is one of them, and what came of it.
type probe struct {
	tenant  string
	source  Source // where it has to go
	streams []string
	refused string // by the right one, for another reason than that of all probes
	stored  uint64 // sequence, if it was stored after all
	nobody  bool   // listens on its subject
	arrived []string
}

func (p *probe) subject() string { return wire.DefaultPrefix + "." + p.tenant + "." + probeLog }

// probesFor finds a tenant for each shard.
func probesFor(sources []Source, most int) (probes []*probe) {
	n := Partitions(sources)
	if n == 0 {
		for _, s := range sources {
			if s.Prefix == wire.DefaultPrefix && most > 0 {
				return []*probe{{tenant: probeTenant + "0", source: s}}
			}
		}
		return nil
	}
	found := make(map[shardid.Shard]bool)
	for i := 0; len(probes) < min(n, most) && i < 100*n; i++ {
		tenant := probeTenant + strconv.Itoa(i)
		shard := PartitionOf(tenant, n)
		at := slices.IndexFunc(sources, func(s Source) bool { return s.Shard == shard && s.Partitions > 0 })
		if at >= 0 && !found[shard] {
			found[shard] = true
			probes = append(probes, &probe{tenant: tenant, source: sources[at]})
		}
	}
	return probes
}

// prober publishes probes and hears what comes of them.
type prober struct {
	nc     *nats.Conn
	probes []*probe
}

func (p *prober) run(ctx context.Context, follow bool) error {
	inbox := p.nc.NewInbox()
	heard := make(chan *nats.Msg, 16*len(p.probes))
	var subs []*nats.Subscription
	defer func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // fails only on a closed connection
		}
	}()
	listen := func(subject string) error {
		sub, err := p.nc.ChanSubscribe(subject, heard)
		subs = append(subs, sub)
		return err
	}
	err := listen(inbox + ".*")
	for _, one := range p.probes {
		if follow {
			err = errors.Join(err, listen("dormouse.shard.*."+one.tenant+".>"))
		}
	}
	for i, one := range p.probes {
		msg := nats.NewMsg(one.subject())
		msg.Reply = inbox + "." + strconv.Itoa(i)
		msg.Header.Set(nats.ExpectedStreamHdr, probeStream)
		err = errors.Join(err, p.nc.PublishMsg(msg))
	}
	if err = errors.Join(err, p.nc.FlushWithContext(ctx)); err != nil {
		return err
	}
	if err := p.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	p.hear(ctx, inbox, heard, follow)
	return nil
}

// hear takes answers up until each probe has what is expected, and a little longer, or ctx is done.
func (p *prober) hear(ctx context.Context, inbox string, heard <-chan *nats.Msg, follow bool) {
	for {
		var silence <-chan time.Time
		if !slices.ContainsFunc(p.probes, func(one *probe) bool { return !one.answered(follow) }) {
			silence = time.After(probeSilence)
		}
		select {
		case <-ctx.Done():
			return
		case <-silence:
			return
		case msg := <-heard:
			p.take(inbox, msg)
		}
	}
}

func (p *probe) answered(follow bool) bool {
	return p.nobody || len(p.streams) > 0 && (!follow || len(p.arrived) > 0)
}

func (p *prober) take(inbox string, msg *nats.Msg) {
	number, isAnswer := strings.CutPrefix(msg.Subject, inbox+".")
	if !isAnswer {
		for _, one := range p.probes {
			if strings.Contains(msg.Subject, "."+one.tenant+".") {
				one.arrived = append(one.arrived, msg.Subject)
			}
		}
		return
	}
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 || i >= len(p.probes) || len(p.probes[i].streams) > len(p.probes) {
		return
	}
	one := p.probes[i]
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		one.nobody = true
		return
	}
	var answer struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
		Error  *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if json.Unmarshal(msg.Data, &answer) != nil || answer.Stream == "" {
		return // somebody who is no stream
	}
	one.streams = append(one.streams, answer.Stream)
	switch {
	case answer.Error == nil:
		one.stored = answer.Seq
	case answer.Error.Code != errCodeWrongStream && answer.Stream == one.source.Stream:
		one.refused = answer.Error.Description
	}
}

// errCodeWrongStream is JetStream's error code for a message that expects another stream.
const errCodeWrongStream = 10060

// problems says what is wrong.
func (p *prober) problems(partitions int, follow bool) (problems []string) {
	nobody := 0
	for _, one := range p.probes {
		if one.nobody {
			nobody++
		}
	}
	if nobody == len(p.probes) && partitions > 0 {
		return []string{fmt.Sprintf("nothing takes what tenants publish below %s.: the account lacks the subject mapping "+
			"from %q to %q", wire.DefaultPrefix, PartitionMapping(partitions).From, PartitionMapping(partitions).To)}
	}
	for _, one := range p.probes {
		if what := one.problem(partitions, follow); what != "" {
			problems = append(problems, what)
		}
	}
	return problems
}

func (p *probe) problem(partitions int, follow bool) string {
	into := fmt.Sprintf("what is published to %s", p.subject())
	others := slices.DeleteFunc(slices.Clone(p.streams), func(s string) bool { return s == p.source.Stream })
	right := len(others) < len(p.streams)
	remedy := "free that subject in the other stream"
	if partitions > 0 {
		m := PartitionMapping(partitions)
		remedy = fmt.Sprintf("map %q to %q, and nothing else below %s.", m.From, m.To, wire.DefaultPrefix)
	}
	switch {
	case p.nobody:
		return fmt.Sprintf("%s goes nowhere, and has to go to stream %s: %s", into, p.source.Stream, remedy)
	case len(p.streams) == 0:
		return fmt.Sprintf("%s is not answered by any stream within %s: has stream %s a leader, and is its no_ack off?",
			into, probeTimeout, p.source.Stream)
	case !right:
		return fmt.Sprintf("%s goes to stream %q, and has to go to %s: %s", into, others[0], p.source.Stream, remedy)
	case len(others) > 0:
		return fmt.Sprintf("%s goes to stream %q besides %s: %s", into, others[0], p.source.Stream, remedy)
	case p.stored > 0:
		return fmt.Sprintf("a probe was stored as entry %d of stream %s: the server knows no expected stream; is it a NATS "+
			"server of 2.10 or later?", p.stored, p.source.Stream)
	case p.refused != "":
		return fmt.Sprintf("stream %s refuses what is published to %s: %q", p.source.Stream, p.subject(), p.refused)
	}
	want := p.source.Prefix + "." + p.tenant + "." + probeLog
	if follow && !slices.Contains(p.arrived, want) {
		arrived := "under no subject that begins with that shard's"
		if len(p.arrived) > 0 {
			arrived = fmt.Sprintf("as %q", p.arrived[0])
		}
		return fmt.Sprintf("%s arrives %s, and has to arrive as %s: %s", into, arrived, want, remedy)
	}
	return ""
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/jsapi"
	"dormouse/internal/rejected"
	"dormouse/internal/shardid"
	"dormouse/internal/streamreader"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/manifest"
)

// skippedReason stands in DORMOUSE_REJECTED beside what provision --skip has put aside.
const skippedReason = "skipped by an operator"

// subjectTimeout bounds the wait for a message whose subject is to be known byte for byte.
const subjectTimeout = 2 * time.Second

// skip is one message of a source stream that is to be put aside.
type skip struct {
	shard shardid.Shard
	seq   uint64
}

func parseSkip(text string) (s skip, err error) {
	shard, seq, ok := strings.Cut(text, ":")
	if ok {
		if s.shard, err = shardid.Parse(shard); err == nil {
			s.seq, err = strconv.ParseUint(seq, 10, 64)
		}
	}
	if !ok || err != nil || s.seq == 0 {
		return s, fmt.Errorf("%q: want SHARD:SEQUENCE, such as 0:1234 (the log, /readyz and dormouse status say which)", text)
	}
	return s, nil
}

// skipMessages puts messages aside, one after the other.
func skipMessages(cmd *cobra.Command, texts []string) error {
	var skips []skip
	for _, text := range texts {
		s, err := parseSkip(text)
		if err != nil {
			return usageErrorf("--skip %w", err)
		}
		skips = append(skips, s)
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	for _, s := range skips {
		said, err := s.run(cmd.Context(), nc, js)
		if err != nil {
			return fmt.Errorf("sequence %d of shard %s was not skipped: %w", s.seq, s.shard, err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), said)
	}
	return nil
}

// run puts the message aside: first it is stored in DORMOUSE_REJECTED, then it is deleted. After a crash between the
// two it can be run again: the id keeps it from being stored twice, for as long as the stream remembers ids, and else
// it is there twice.
func (s skip) run(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) (said string, err error) {
	source, err := s.source(ctx, js)
	if err != nil {
		return "", err
	}
	stream, err := js.Stream(ctx, source.Stream)
	if err != nil {
		return "", fmt.Errorf("opening stream %s: %w", source.Stream, err)
	}
	msg, err := jsapi.Get(ctx, js, source.Stream, s.seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return s.missing(ctx, js, stream)
	}
	if err != nil {
		return "", fmt.Errorf("reading it from stream %s: %w", source.Stream, err)
	}
	if err := s.isWaiting(ctx, nc, js); err != nil {
		return "", err
	}
	if strings.ContainsRune(msg.Subject, utf8.RuneError) { // JSON does not tell what is not UTF-8
		msg.Subject = exactSubject(ctx, js, source.Stream, msg)
	}
	aside := rejected.Message{Stream: source.Stream, Subject: msg.Subject, Seq: s.seq, Time: msg.Time,
		Block: msg.Header, Data: msg.Data}
	var kept uint64
	for _, part := range aside.Publications(wire.SkippedSubject(s.shard), skippedReason, int(nc.MaxPayload())) {
		ack, err := js.PublishMsg(ctx, part, jetstream.WithExpectStream(wire.RejectedStream))
		if err != nil {
			return "", fmt.Errorf("storing it in %s, without which it is not deleted: %w", wire.RejectedStream, err)
		}
		kept = ack.Sequence
	}
	if err := stream.DeleteMsg(ctx, s.seq); err != nil {
		if _, again := jsapi.Get(ctx, js, source.Stream, s.seq); !errors.Is(again, jetstream.ErrMsgNotFound) {
			return "", fmt.Errorf("it is in %s at sequence %d, but could not be deleted from stream %s "+
				"(has that deny_delete?); run this again: %w", wire.RejectedStream, kept, source.Stream, err)
		}
	}
	return fmt.Sprintf("skipped sequence %d of shard %s (%.200q): it is in %s at sequence %d. "+
		"If an owner had it in hand already, its log has it as well",
		s.seq, s.shard, msg.Subject, wire.RejectedStream, kept), nil
}

// exactSubject returns a message's subject as a consumer is sent it, or what is known of it.
func exactSubject(ctx context.Context, js jetstream.JetStream, stream string, msg jsapi.Message) string {
	one := streamreader.Limits{Messages: 1, Bytes: len(msg.Data) + len(msg.Header)}
	consumer, err := streamreader.Open(ctx, js, stream, "", msg.Sequence, one)
	if err != nil {
		return msg.Subject
	}
	defer consumer.Stop()
	ctx, cancel := context.WithTimeout(ctx, subjectTimeout)
	defer cancel()
	if sent, err := consumer.Next(ctx); err == nil && sent.Sequence == msg.Sequence {
		return sent.Subject
	}
	return msg.Subject
}

func (s skip) source(ctx context.Context, js jetstream.JetStream) (topology.Source, error) {
	sources, err := topology.Sources(ctx, js)
	if err != nil {
		return topology.Source{}, err
	}
	var known []string
	for _, source := range sources {
		if source.Shard == s.shard {
			return source, nil
		}
		known = append(known, source.Shard.String())
	}
	return topology.Source{}, fmt.Errorf("there is no such shard; there are %s", strings.Join(known, ", "))
}

// missing says what became of a message that the stream does not have.
func (s skip) missing(ctx context.Context, js jetstream.JetStream, stream jetstream.Stream) (said string, err error) {
	for from := uint64(1); ; {
		msg, err := jsapi.GetNext(ctx, js, wire.RejectedStream, wire.SkippedSubject(s.shard), from)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("looking whether it is in %s: %w", wire.RejectedStream, err)
		}
		if seq, _, err := rejected.Origin(msg.Header); err == nil && seq == s.seq {
			return fmt.Sprintf("sequence %d of shard %s was skipped before: it is in %s at sequence %d",
				s.seq, s.shard, wire.RejectedStream, msg.Sequence), nil
		}
		from = msg.Sequence + 1
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return "", fmt.Errorf("reading stream %s: %w", stream.CachedInfo().Config.Name, err)
	}
	return "", fmt.Errorf("stream %s does not have it: it holds %d messages from %d to %d",
		info.Config.Name, info.State.Msgs, info.State.FirstSeq, info.State.LastSeq)
}

// isWaiting returns an error when the shard has got past the message: it is archived, or its owner has it and archives
// it. Without an owner who tells, what is above the floor may be archived already; it is put aside as well then.
func (s skip) isWaiting(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	m, err := manifest.Open(ctx, js, s.shard)
	if err != nil {
		return err
	}
	if last, _ := m.Last(); s.seq <= last.Floor {
		return fmt.Errorf("it is archived: the shard has archived all up to sequence %d", last.Floor)
	}
	status, err := client.New(nc, js).Status(ctx)
	if err != nil {
		return err
	}
	for _, shard := range status.Shards {
		if shard.Source.Shard != s.shard || shard.Owner == nil || shard.Owner.State != wire.ShardOwned {
			continue
		}
		if s.seq <= shard.Owner.Applied {
			return fmt.Errorf("the shard's owner has taken it in, as all up to sequence %d, and archives it in time: "+
				"nothing waits at it", shard.Owner.Applied)
		}
		return nil
	}
	return nil
}

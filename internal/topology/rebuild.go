package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// BeginManifest makes the manifest stream, so that its next record is at or above cfg.FirstRecord. One that is there
// and has no record of any shard is made to go on there; the error wraps ErrRefused when it has some and goes on below.
func BeginManifest(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	cfg.Replicas = max(cfg.Replicas, 1)
	if err := ensureManifest(ctx, js, cfg); err != nil {
		return err
	}
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return fmt.Errorf("opening stream %s: %w", wire.ManifestStream, err)
	}
	if stream.CachedInfo().State.LastSeq+1 >= cfg.FirstRecord {
		return nil
	}
	shards, err := Manifests(ctx, js)
	if err != nil {
		return err
	}
	if len(shards) > 0 {
		return fmt.Errorf("%w: stream %s has records of shards %v and goes on at %d, and the archive knows records up to "+
			"%d: delete that stream if nothing of it is needed, and begin again", ErrRefused, wire.ManifestStream, shards,
			stream.CachedInfo().State.LastSeq+1, cfg.FirstRecord-1)
	}
	// What it drops is at most the name of a system that has no bucket yet.
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(cfg.FirstRecord)); err != nil {
		return fmt.Errorf("having stream %s begin at %d: %w", wire.ManifestStream, cfg.FirstRecord, err)
	}
	return nil
}

// Fits returns nil when the source streams that are there allow that tenants are spread over so many shards; 0 is what
// there is. The error wraps ErrRefused.
func Fits(sources []Source, shards int) error {
	if shards == 0 {
		return nil
	}
	return checkPartitions(sources, Partitions(sources), shards)
}

// Begins returns where a source stream that is there begins, if that is at or above a sequence; 0 if it has never had a
// message and can be made to begin there, see Raise. The error wraps ErrRefused.
func Begins(ctx context.Context, js jetstream.JetStream, source Source, first uint64) (seq uint64, err error) {
	stream, err := js.Stream(ctx, source.Stream)
	if err != nil {
		return 0, fmt.Errorf("opening stream %s: %w", source.Stream, err)
	}
	state := stream.CachedInfo().State
	parked := slices.Equal(stream.CachedInfo().Config.Subjects, []string{parkedSubjects + source.Stream})
	switch {
	case max(state.FirstSeq, 1) >= first && !parked:
		return state.FirstSeq, nil
	case state.Msgs == 0 && source.Managed:
		return 0, nil
	case state.Msgs == 0:
		return 0, fmt.Errorf("%w: stream %s, which is shard %s, goes on at sequence %d, and its logs are archived up to "+
			"%d: make it anew with first_seq %d", ErrRefused, source.Stream, source.Shard, state.LastSeq+1, first-1, first)
	}
	return 0, fmt.Errorf("%w: stream %s, which is shard %s, has %d messages from sequence %d on, and its logs are "+
		"archived up to %d: sequences would be used twice. Move its messages away (nats stream backup), delete it, and "+
		"publish them again when the system goes on", ErrRefused, source.Stream, source.Shard, state.Msgs, state.FirstSeq,
		first-1)
}

// parkedSubjects is what a source stream takes while its sequences are raised: nobody publishes there.
const parkedSubjects = "dormouse.rebuilding."

// Raise makes an empty source stream of Dormouse's go on at a sequence. Meanwhile it takes no messages, since those
// would be dropped. The steps, and what a crash after each leaves: (1) it takes nothing that anybody publishes; (2) it
// is seen to be empty still, and goes on above; (3) it takes what it did. Raise does what is missing of that.
func Raise(ctx context.Context, js jetstream.JetStream, source Source, first uint64) error {
	stream, err := js.Stream(ctx, source.Stream)
	if err != nil {
		return fmt.Errorf("opening stream %s: %w", source.Stream, err)
	}
	cfg, takes := stream.CachedInfo().Config, []string{source.Prefix + ".>"}
	parked := cfg
	parked.Subjects = []string{parkedSubjects + source.Stream}
	if stream, err = js.UpdateStream(ctx, parked); err != nil {
		return fmt.Errorf("having stream %s take nothing: %w", source.Stream, err)
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("looking at stream %s: %w", source.Stream, err)
	}
	var refused error
	if info.State.Msgs > 0 {
		_, refused = Begins(ctx, js, source, first)
	} else if info.State.LastSeq+1 < first {
		refused = stream.Purge(ctx, jetstream.WithPurgeSequence(first))
	}
	cfg.Subjects = takes
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		refused = errors.Join(refused, fmt.Errorf("having stream %s take %v again: %w", source.Stream, takes, err))
	}
	return refused
}

package topology

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// Source is one source stream, found by its metadata.
type Source struct {
	Shard   shardid.Shard
	Stream  string // the stream's name
	Prefix  string // subjects are <prefix>.<LogID>
	Managed bool   // made by Dormouse, which may trim it
	// Partitions is how many shards the tenants are spread over by an account mapping; 0 when this one is not among them.
	Partitions int
	Created    time.Time // when the stream was made
}

// Sources returns the source streams, ascending by shard.
func Sources(ctx context.Context, js jetstream.JetStream) ([]Source, error) {
	var sources []Source
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		source, ok, err := sourceOf(info)
		if err != nil {
			return nil, err
		}
		if ok {
			sources = append(sources, source)
		}
	}
	if err := streams.Err(); err != nil {
		return nil, fmt.Errorf("listing streams: %w", err)
	}
	slices.SortFunc(sources, func(a, b Source) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Stream, b.Stream))
	})
	// A list that comes in pages while leaders change may have a stream twice.
	sources = slices.CompactFunc(sources, func(a, b Source) bool { return a.Stream == b.Stream })
	for i := 1; i < len(sources); i++ {
		if a, b := sources[i-1], sources[i]; a.Shard == b.Shard {
			return nil, fmt.Errorf("%w: streams %s and %s both have metadata %s=%s: a shard is one stream",
				ErrRefused, a.Stream, b.Stream, wire.MetadataShard, a.Shard)
		}
	}
	return sources, nil
}

func sourceOf(info *jetstream.StreamInfo) (Source, bool, error) {
	metadata := info.Config.Metadata
	number, ok := metadata[wire.MetadataShard]
	if !ok {
		return Source{}, false, nil
	}
	shard, err := shardid.Parse(number)
	if err != nil {
		return Source{}, false, fmt.Errorf("%w: stream %s: metadata %s: %w", ErrRefused, info.Config.Name, wire.MetadataShard,
			err)
	}
	partitions := 0
	if text, ok := metadata[wire.MetadataPartitions]; ok {
		if partitions, err = strconv.Atoi(text); err != nil || partitions < 2 || partitions > MaxShards {
			return Source{}, false, fmt.Errorf("%w: stream %s: metadata %s is %q, want 2 to %d", ErrRefused, info.Config.Name,
				wire.MetadataPartitions, text, MaxShards)
		}
	}
	return Source{
		Partitions: partitions, Shard: shard, Stream: info.Config.Name, Created: info.Created,
		Prefix:  cmp.Or(metadata[wire.MetadataPrefix], wire.DefaultPrefix),
		Managed: metadata[wire.MetadataManaged] == "true",
	}, true, nil
}

package topology

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// Source is one source stream, found by its metadata.
type Source struct {
	Shard   wire.Shard
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
	shard, err := wire.ParseShard(number)
	if err != nil {
		return Source{}, false, fmt.Errorf("%w: stream %s: metadata %s: %w", ErrRefused, info.Config.Name, wire.MetadataShard, err)
	}
	partitions := 0
	if text, ok := metadata[wire.MetadataPartitions]; ok {
		if partitions, err = strconv.Atoi(text); err != nil || partitions < 2 || partitions > MaxShards {
			return Source{}, false, fmt.Errorf("%w: stream %s: metadata %s is %q, want 2 to %d", ErrRefused, info.Config.Name, wire.MetadataPartitions, text, MaxShards)
		}
	}
	return Source{
		Partitions: partitions, Shard: shard, Stream: info.Config.Name, Created: info.Created,
		Prefix:  cmp.Or(metadata[wire.MetadataPrefix], wire.DefaultPrefix),
		Managed: metadata[wire.MetadataManaged] == "true",
	}, true, nil
}

// checkSources checks every source stream, and warns of what is allowed.
func checkSources(ctx context.Context, js jetstream.JetStream, cfg Config, sources []Source) (warnings []string, err error) {
	for _, source := range sources {
		stream, err := js.Stream(ctx, source.Stream)
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: %w", source.Stream, err)
		}
		have := stream.CachedInfo().Config
		if err := checkSource(have, cfg); err != nil {
			return nil, err
		}
		warnings = append(warnings, sourceWarnings(have)...)
		for _, subject := range have.Subjects {
			if subject != source.Prefix+".>" && !strings.HasPrefix(subject, source.Prefix+".") {
				warnings = append(warnings, fmt.Sprintf("stream %s takes subject %s, which is not below %s: what is published there is no log and goes to %s",
					have.Name, subject, source.Prefix, wire.RejectedStream))
			}
		}
	}
	return warnings, nil
}

// checkSource refuses settings under which an acked entry need not be in the stream until it is archived.
func checkSource(have jetstream.StreamConfig, cfg Config) error {
	must := []setting{
		{"retention", have.Retention, jetstream.LimitsPolicy},
		{"storage", have.Storage, jetstream.FileStorage},
		{"no_ack", have.NoAck, false},
		{"sealed", have.Sealed, false},
		{"mirror", have.Mirror != nil, false},
		{"persist_mode async", have.PersistMode == jetstream.AsyncPersistMode, false},
	}
	if cfg.Trim {
		must = append(must, setting{"deny_purge", have.DenyPurge, false})
	}
	return check(have, must...)
}

// sourceWarnings names limits that make the stream drop its oldest entries, archived or not.
func sourceWarnings(have jetstream.StreamConfig) (warnings []string) {
	warn := func(name string, value any) {
		warnings = append(warnings, fmt.Sprintf("stream %s has %s %v: entries can be dropped before they are archived", have.Name, name, value))
	}
	if have.MaxAge > 0 {
		warn("max_age", have.MaxAge)
	}
	if have.MaxMsgsPerSubject > 0 && !have.DiscardNewPerSubject {
		warn("max_msgs_per_subject", have.MaxMsgsPerSubject)
	}
	if have.Discard == jetstream.DiscardOld {
		if have.MaxMsgs > 0 {
			warn("discard old and max_msgs", have.MaxMsgs)
		}
		if have.MaxBytes > 0 {
			warn("discard old and max_bytes", have.MaxBytes)
		}
	}
	if have.AllowRollup {
		warn("allow_rollup_hdrs", true)
	}
	return warnings
}

package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/wire"
)

// Source is one source stream, found by its metadata.
type Source struct {
	Shard   wire.Shard
	Stream  string    // the stream's name
	Prefix  string    // subjects are <prefix>.<LogID>
	Managed bool      // made by Dormouse, which may trim it
	Created time.Time // when the stream was made
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
	slices.SortFunc(sources, func(a, b Source) int { return cmp.Compare(a.Shard, b.Shard) })
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
	return Source{
		Shard: shard, Stream: info.Config.Name, Created: info.Created,
		Prefix:  cmp.Or(metadata[wire.MetadataPrefix], wire.DefaultPrefix),
		Managed: metadata[wire.MetadataManaged] == "true",
	}, true, nil
}

// ensureSource makes the default source stream when there is no shard yet, takes over one of that name that was there
// before, and checks every source stream.
func ensureSource(ctx context.Context, js jetstream.JetStream, cfg Config) (warnings []string, err error) {
	sources, err := Sources(ctx, js)
	if err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		if err := makeSource(ctx, js, cfg); err != nil {
			return nil, err
		}
		if sources, err = Sources(ctx, js); err != nil {
			return nil, err
		}
	}
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
	}
	return warnings, nil
}

func sourceMetadata(managed bool) map[string]string {
	m := map[string]string{wire.MetadataShard: "0", wire.MetadataPrefix: wire.DefaultPrefix}
	if managed {
		m[wire.MetadataManaged] = "true"
	}
	return m
}

func makeSource(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	have, err := ensureStream(ctx, js, jetstream.StreamConfig{
		Name:        wire.DefaultSource,
		Description: "Dormouse: entries that are not archived yet",
		Subjects:    []string{wire.DefaultPrefix + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    cfg.Replicas,
		Discard:     jetstream.DiscardNew, // a full stream refuses publishers; it never drops what it acked
		AllowDirect: true,
		Metadata:    sourceMetadata(true),
	})
	if isOverlap(err) {
		return fmt.Errorf("%w: another stream already takes subjects below %s.; name it %s, or give it the metadata %s=0 and %s=<subject prefix>: %w",
			ErrRefused, wire.DefaultPrefix, wire.DefaultSource, wire.MetadataShard, wire.MetadataPrefix, err)
	}
	if err != nil {
		return err
	}
	if _, ok := have.Metadata[wire.MetadataShard]; ok {
		return nil
	}
	// It was there before: check it before it is touched, and do not call it ours.
	if err := checkSource(have, cfg); err != nil {
		return err
	}
	if !slices.Equal(have.Subjects, []string{wire.DefaultPrefix + ".>"}) {
		return fmt.Errorf("%w: stream %s has subjects %v, and Dormouse needs [%s.>] on a stream of that name",
			ErrRefused, have.Name, have.Subjects, wire.DefaultPrefix)
	}
	if have.Metadata == nil {
		have.Metadata = make(map[string]string)
	}
	for k, v := range sourceMetadata(false) {
		have.Metadata[k] = v
	}
	if _, err := js.UpdateStream(ctx, have); err != nil {
		return fmt.Errorf("marking stream %s as shard 0: %w", have.Name, err)
	}
	return nil
}

// errCodeSubjectOverlap is JetStream's error code for subjects that another stream takes.
const errCodeSubjectOverlap = 10065

func isOverlap(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == errCodeSubjectOverlap
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

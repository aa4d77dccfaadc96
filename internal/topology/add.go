package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/wire"
)

// AddSource makes a stream that users have a shard, with the lowest number that is free. An empty prefix is what all
// that the stream stores has in common before ".>". A stream that is a shard already is left as it is; but one with a
// prefix under which it never had a log gets another prefix and number, and so is archived from its beginning.
//
// Unlike Ensure it must not run in several processes at once: two streams could get one number, which Sources refuses.
func AddSource(ctx context.Context, js jetstream.JetStream, name, prefix string, cfg Config) error {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("%w: there is no stream %s to add: see 'nats stream ls'", ErrRefused, name)
	}
	if err != nil {
		return fmt.Errorf("reading stream %s: %w", name, err)
	}
	have := stream.CachedInfo().Config
	stores, err := storedBy(ctx, js, have)
	if err != nil {
		return err
	}
	if prefix, err = prefixFor(have, stores, prefix); err != nil {
		return err
	}
	sources, err := Sources(ctx, js)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(sources, func(s Source) bool { return s.Stream == name }); i >= 0 {
		if sources[i].Prefix == prefix {
			return nil
		}
		if err := mayChange(ctx, js, stores, sources[i], prefix, cfg); err != nil {
			return err
		}
	}
	if err := fitsPrefix(ctx, js, name, stores, prefix); err != nil {
		return err
	}
	if n := Partitions(sources); n > 0 && prefix == wire.DefaultPrefix {
		return fmt.Errorf("%w: what is published below %s is spread over %d shards: with stream %s as another one of "+
			"prefix %s, logs would be in two shards and lose their order",
			ErrRefused, prefix, n, name, prefix)
	}
	used, err := Manifests(ctx, js)
	if err != nil {
		return err
	}
	return markSource(ctx, js, have, freeShard(sources, used...), prefix, cfg)
}

// prefixFor returns the prefix of a stream: the one that is asked for, or the one that it has, or the only one that
// there can be.
func prefixFor(have jetstream.StreamConfig, stores stored, prefix string) (string, error) {
	if old := have.Metadata[wire.MetadataPrefix]; prefix == "" && old != "" && stores.under(old) != noLogs {
		prefix = old
	}
	if prefix == "" {
		prefix, _ = stores.prefix()
	}
	if prefix == "" {
		return "", fmt.Errorf("%w: stream %s stores %v: say what stands before the LogIDs, as in --add-stream "+
			"%s=orders", ErrRefused, have.Name, stores, have.Name)
	}
	p := parsePattern(prefix)
	if !p.literal() || slices.Contains(p, "") || strings.ContainsAny(prefix, " \t\r\n") {
		return "", fmt.Errorf("%w: %q is no prefix of subjects: want tokens without wildcards, as in --add-stream "+
			"%s=orders", ErrRefused, prefix, have.Name)
	}
	return prefix, nil
}

// fitsPrefix refuses a prefix under which the stream stores no log, unless it did so before it was changed.
func fitsPrefix(ctx context.Context, js jetstream.JetStream, stream string, stores stored, prefix string) error {
	if stores.under(prefix) != noLogs {
		return nil
	}
	if log, err := aLog(ctx, js, stream, prefix); err != nil || log != "" {
		return err
	}
	return fmt.Errorf("%w: stream %s stores %v, of which none is below %s: all of its messages would go to %s",
		ErrRefused, stream, stores, prefix, wire.RejectedStream)
}

// mayChange refuses another prefix for a stream that is a shard already, unless it cannot have had a log under the old
// one.
func mayChange(ctx context.Context, js jetstream.JetStream, stores stored, source Source, prefix string,
	cfg Config) error {
	refused := fmt.Errorf("%w: stream %s is shard %s with prefix %s, and cannot get prefix %s: its logs would change "+
		"their names",
		ErrRefused, source.Stream, source.Shard, source.Prefix, prefix)
	if cfg.HasArchive == nil || source.Managed || stores.under(source.Prefix) == allLogs {
		return refused
	}
	if log, err := aLog(ctx, js, source.Stream, source.Prefix); err != nil || log != "" {
		return errors.Join(err, refused)
	}
	if archived, err := cfg.HasArchive(ctx, source.Shard); err != nil || archived {
		return errors.Join(err, refused)
	}
	return nil
}

// aLog returns a subject that the stream has a message of which is a log under the prefix, "" without any.
func aLog(ctx context.Context, js jetstream.JetStream, stream, prefix string) (subject string, err error) {
	msg, err := jsapi.GetNext(ctx, js, stream, prefix+".*.>", 1)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading stream %s: %w", stream, err)
	}
	return msg.Subject, nil
}

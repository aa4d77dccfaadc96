package topology

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
)

// checkSources checks every source stream, and warns of what is allowed.
func checkSources(ctx context.Context, js jetstream.JetStream, cfg Config, sources []Source) (warnings []string,
	err error) {
	checked := make([]checkedSource, 0, len(sources))
	for _, source := range sources {
		stream, err := js.Stream(ctx, source.Stream)
		if err != nil {
			return nil, fmt.Errorf("reading stream %s: %w", source.Stream, err)
		}
		have := stream.CachedInfo()
		if err := checkSource(have.Config, cfg); err != nil {
			return nil, err
		}
		stores, err := storedBy(ctx, js, have.Config)
		if err != nil {
			return nil, err
		}
		c := checkedSource{source, js, have, stores}
		more, err := c.prefixWarnings(ctx)
		if err != nil {
			return nil, err
		}
		warnings = append(append(warnings, settingWarnings(have)...), more...)
		checked = append(checked, c)
	}
	return append(warnings, sharedWarnings(checked)...), nil
}

// checkSource refuses settings under which an acked entry need not be in the stream until it is archived, or nobody
// could read it.
func checkSource(have jetstream.StreamConfig, cfg Config) error {
	if have.Mirror != nil {
		return fmt.Errorf("%w: stream %s is a mirror of %s, to which nothing can be published: make a stream with "+
			"that one among its sources, and add it",
			ErrRefused, have.Name, have.Mirror.Name)
	}
	if limit := have.ConsumerLimits.InactiveThreshold; limit > 0 && limit < streamreader.Idle {
		return fmt.Errorf("%w: stream %s has consumer_limits with inactive_threshold %s, and Dormouse's consumers "+
			"need %s: raise it with the nats CLI",
			ErrRefused, have.Name, limit, streamreader.Idle)
	}
	must := []setting{
		{"retention", have.Retention, jetstream.LimitsPolicy},
		{"storage", have.Storage, jetstream.FileStorage},
		{"no_ack", have.NoAck, false},
		{"sealed", have.Sealed, false},
		{"persist_mode async", have.PersistMode == jetstream.AsyncPersistMode, false},
	}
	if cfg.Trim {
		must = append(must, setting{"deny_purge", have.DenyPurge, false},
			setting{"with --trim always allow_msg_counter", have.AllowMsgCounter, false}, // the counters would begin anew
			// what is not due yet would never be
			setting{"with --trim always allow_msg_schedules", have.AllowMsgSchedules, false})
	}
	return check(have, must...)
}

// Drops names the settings, as they are, by which a source stream drops entries, archived or not.
func Drops(have jetstream.StreamConfig) (settings []string) {
	drops := func(when bool, name string, value any) {
		if when {
			settings = append(settings, fmt.Sprintf("%s %v", name, value))
		}
	}
	old := have.Discard == jetstream.DiscardOld
	drops(have.MaxAge > 0, "max_age", have.MaxAge)
	drops(have.MaxMsgsPerSubject > 0 && !have.DiscardNewPerSubject, "max_msgs_per_subject", have.MaxMsgsPerSubject)
	drops(old && have.MaxMsgs > 0, "discard old and max_msgs", have.MaxMsgs)
	drops(old && have.MaxBytes > 0, "discard old and max_bytes", have.MaxBytes)
	drops(have.AllowRollup && !have.DenyPurge, "allow_rollup_hdrs", true)
	drops(have.AllowMsgTTL, "allow_msg_ttl", true)
	drops(have.SubjectDeleteMarkerTTL > 0, "subject_delete_marker_ttl", have.SubjectDeleteMarkerTTL)
	drops(have.AllowMsgSchedules, "allow_msg_schedules", true)
	return settings
}

// fewConsumers is a limit of consumers that readers soon meet.
const fewConsumers = 16

// settingWarnings names what of a stream's configuration can lose entries before they are archived, or surprise
// somebody.
func settingWarnings(have *jetstream.StreamInfo) (warnings []string) {
	name := have.Config.Name
	for _, setting := range Drops(have.Config) {
		warnings = append(warnings, fmt.Sprintf("stream %s has %s: entries can be dropped before they are "+
			"archived", name, setting))
	}
	if most := have.Config.MaxConsumers; most > 0 && most < fewConsumers {
		warnings = append(warnings, fmt.Sprintf("stream %s has max_consumers %d, and %d of them now: the owner of "+
			"its shard needs one, or nothing is archived, "+
			"and each reader of what is not archived yet one more; raise it", name, most, have.State.Consumers))
	}
	if have.Config.AllowMsgCounter {
		warnings = append(warnings, fmt.Sprintf("stream %s has allow_msg_counter true: its entries are archived with "+
			"the totals that they came to, "+
			"and are no counters when they are read", name))
	}
	return warnings
}

// checkedSource is a source stream with what is known of it.
type checkedSource struct {
	Source
	js     jetstream.JetStream
	info   *jetstream.StreamInfo
	stores stored
}

// prefixWarnings names what the stream stores, or may store, that is no log under its prefix.
func (c checkedSource) prefixWarnings(ctx context.Context) (warnings []string, err error) {
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	for i, p := range c.stores.patterns {
		under := p.under(c.Prefix)
		switch {
		case under == allLogs:
		case i == shownPatterns:
			warn("stream %s stores more subjects of which not all are below %s", c.Stream, c.Prefix)
			return warnings, nil
		case under == noLogs:
			warn("stream %s stores %s, which is not below %s: what is stored there is no log and goes to "+
				"%s", c.Stream, p, c.Prefix, wire.RejectedStream)
		default:
			warn("stream %s stores %s: only what of it is below %s is a log, and the rest goes to "+
				"%s", c.Stream, p, c.Prefix, wire.RejectedStream)
		}
	}
	for _, origin := range c.stores.unknown {
		warn("stream %s takes from stream %s, of whose subjects nothing is known here: whether all of them are below "+
			"%s is yours to know", c.Stream, origin, c.Prefix)
	}
	if len(warnings) == 0 || c.info.State.Msgs == 0 {
		return warnings, nil
	}
	log, err := aLog(ctx, c.js, c.Stream, c.Prefix)
	if err != nil || log != "" {
		return warnings, err
	}
	example := ""
	if last, err := jsapi.Get(ctx, c.js, c.Stream, c.info.State.LastSeq); err == nil { // it may be deleted
		example = fmt.Sprintf(", its last one is %q", last.Subject)
	}
	warn("none of the %d messages in stream %s is a log below %s%s. If the prefix is wrong, put it right: dormouse "+
		"provision --add-stream %s=PREFIX",
		c.info.State.Msgs, c.Stream, c.Prefix, example, c.Stream)
	return warnings, nil
}

// sharedWarnings names entries that would be in two shards: logs have no order among them.
func sharedWarnings(sources []checkedSource) (warnings []string) {
	for _, a := range sources {
		for _, b := range sources {
			if a.Stream == b.Stream || a.Partitions > 0 && b.Partitions > 0 {
				continue
			}
			if a.Shard < b.Shard && a.Prefix == b.Prefix && a.stores.meets(b.stores.patterns) {
				warnings = append(warnings, fmt.Sprintf("streams %s and %s can both store logs below %s: a log that "+
					"is in two shards loses its order",
					a.Stream, b.Stream, a.Prefix))
			}
			if a.republishesTo(b) {
				warnings = append(warnings, fmt.Sprintf("stream %s republishes to %s, which stream %s takes: those "+
					"entries are archived twice, and its logs "+
					"may be in two shards", a.Stream, a.info.Config.RePublish.Destination, b.Stream))
			}
		}
	}
	return warnings
}

func (c checkedSource) republishesTo(other checkedSource) bool {
	r := c.info.Config.RePublish
	if r == nil {
		return false
	}
	var taken []pattern
	for _, subject := range other.info.Config.Subjects {
		taken = append(taken, parsePattern(subject))
	}
	for _, p := range c.stores.patterns {
		to, ok := image(p, jetstream.SubjectTransformConfig{Source: r.Source, Destination: r.Destination})
		if ok && (stored{patterns: taken}).meets([]pattern{to}) {
			return true
		}
	}
	return false
}

package shard

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/ingesttest"
	"dormouse/store/manifest"
)

// TestResume: from which floor a new owner goes on, and of which stream, by what the last record says and what the
// stream has: entries 3 and 4, since 1 and 2 were trimmed.
func TestResume(t *testing.T) {
	var log ingesttest.Log
	o := claimed(t, func(c *Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	const madeAnew = "the source stream was made anew and goes on where the old one ended: what the old one held beyond " +
		"the archive is gone"
	if lines := log.Lines(t, madeAnew); len(lines) > 0 {
		t.Errorf("the first owner says %v", lines)
	}
	s := o.system(t)
	s.Publish("logs.t.a", "1", "2", "3", "4")
	at := s.Message(4).Time
	if err := o.from.stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := o.from.stream.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := o.from.stream.CachedInfo().Created
	anew := manifest.Source{Created: made, Seq: 2}
	for name, tc := range map[string]struct {
		last   manifest.Record
		floor  uint64
		source manifest.Source
		err    error
	}{
		"its first owner": {manifest.Record{}, 2, anew, nil},
		"as it was": {manifest.Record{Epoch: 1, Floor: 3, Source: manifest.Source{Created: made, Seq: 4, Time: at}},
			3, manifest.Source{Created: made, Seq: 4, Time: at}, nil},
		"it lost its end": {manifest.Record{Epoch: 1, Floor: 5,
			Source: manifest.Source{Created: made, Seq: 5, Time: at}}, 2, anew, nil},
		"it has another end": {manifest.Record{Epoch: 1, Floor: 4,
			Source: manifest.Source{Created: made, Seq: 4, Time: at.Add(1)}}, 2, anew, nil},
		"it lost what was never archived": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made, Seq: 5, Time: at}}, 1, anew, nil},
		"made anew above what was taken in": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made.Add(-1), Seq: 2, Time: at}}, 2, anew, nil},
		"made anew below it": {manifest.Record{Epoch: 1, Floor: 1,
			Source: manifest.Source{Created: made.Add(-1), Seq: 3, Time: at}}, 0, manifest.Source{}, errAnotherSource},
	} {
		floor, source, err := o.claim.resume(t.Context(), tc.last)
		if floor != tc.floor || source.Seq != tc.source.Seq || !source.Created.Equal(tc.source.Created) ||
			!source.Time.Equal(tc.source.Time) || !errors.Is(err, tc.err) {
			t.Errorf("%s: from %d of %+v, %v, want %d of %+v", name, floor, source, err, tc.floor, tc.source)
		}
	}
}

package ingest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/ingest/shard"
	"dormouse/internal/natstest"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// watched is a JetStream that tells of every record that was appended to the manifest, before its author hears of it,
// and of every purge, before it happens.
type watched struct {
	jetstream.JetStream
	appended func(seq uint64, r manifest.Record)
	purging  func(stream string, upTo uint64) // upTo is the last sequence that goes
}

func (w *watched) PublishMsg(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck,
	error) {
	ack, err := w.JetStream.PublishMsg(ctx, msg, opts...)
	if err != nil || msg.Subject != wire.ManifestSubject(0) {
		return ack, err
	}
	r, err := manifest.Decode(msg.Data)
	if err == nil {
		w.appended(ack.Sequence, r)
	}
	return ack, err
}

func (w *watched) Stream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := w.JetStream.Stream(ctx, name)
	return watchedStream{stream, name, w}, err
}

type watchedStream struct {
	jetstream.Stream
	name string
	w    *watched
}

func (s watchedStream) Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	var request jetstream.StreamPurgeRequest
	for _, opt := range opts {
		if err := opt(&request); err != nil {
			return err
		}
	}
	s.w.purging(s.name, request.Sequence-1)
	return s.Stream.Purge(ctx, opts...)
}

// TestPurgesWaitForTheDelay: nothing is removed, from the source stream on the strength of a floor or from the manifest
// on that of a checkpoint, before the record that says so is TrimDelay old. NATS acks before it syncs.
func TestPurgesWaitForTheDelay(t *testing.T) {
	s := newSystem(t)
	const delay = 300 * time.Millisecond
	var mu sync.Mutex
	// by stream: when it was first recorded that all up to a sequence may go
	allowed := make(map[string]map[uint64]time.Time)
	purges := make(map[string]int)
	js := &watched{JetStream: s.JS,
		appended: func(_ uint64, r manifest.Record) {
			mu.Lock()
			defer mu.Unlock()
			allow := func(stream string, upTo uint64) {
				if allowed[stream] == nil {
					allowed[stream] = make(map[uint64]time.Time)
				}
				if _, known := allowed[stream][upTo]; !known {
					allowed[stream][upTo] = time.Now()
				}
			}
			allow(wire.DefaultSource, r.Floor)
			if r.Kind == manifest.TakeCheckpoint {
				allow(wire.ManifestStream, r.Checkpoint.UpTo)
			}
		},
		purging: func(stream string, upTo uint64) {
			mu.Lock()
			defer mu.Unlock()
			purges[stream]++
			at, known := allowed[stream][upTo]
			if waited := time.Since(at); !known || waited < delay {
				t.Errorf("%s is purged up to %d, %s after a record allowed it (known: %v), want %s", stream, upTo, waited, known,
					delay)
			}
		}}
	n := s.start("a", t.TempDir(), func(c *Config) { often(c); c.JS, c.TrimDelay = js, delay })
	n.awaitOwned()
	for i := range 6 {
		s.commitOne("0/"+string(rune('a'+i))+".sst", "t.a")
	}
	s.Until("purges of the source stream and of the manifest", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return purges[wire.DefaultSource] > 0 && purges[wire.ManifestStream] > 0
	})
}

// TestPurgesLookAtTheManifest takes the record that allows a purge away again, as a power failure of the servers does
// that this process lives through: its owner must not purge any more, and step down.
func TestPurgesLookAtTheManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		stream  string
		trim    shard.Trim
		records uint64 // of the manifest's tail
		allowed func(r manifest.Record) bool
	}{
		"the source stream": {wire.DefaultSource, shard.TrimAuto, 1000, func(r manifest.Record) bool { return r.Floor > 0 }},
		"the manifest": {wire.ManifestStream, shard.TrimNever, 3, func(r manifest.Record) bool {
			return r.Kind == manifest.TakeCheckpoint
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t)
			var mu sync.Mutex
			var epoch, lost uint64 // of the last record; in which a record was lost
			purged := false
			last, gone := make(chan uint64, 1), make(chan struct{})
			js := &watched{JetStream: s.JS,
				appended: func(seq uint64, r manifest.Record) {
					mu.Lock()
					epoch = r.Epoch
					lose := lost == 0 && tc.allowed(r)
					if lose {
						lost = r.Epoch
					}
					mu.Unlock()
					if lose {
						last <- seq
						select {
						case <-gone:
						case <-t.Context().Done(): // not with the try: making the stream anew may take longer
						}
					}
				},
				purging: func(name string, _ uint64) {
					mu.Lock()
					defer mu.Unlock()
					if name != tc.stream {
						return
					}
					if purged = true; epoch == lost {
						t.Errorf("%s is purged, and the record that allowed it is not there any more", name)
					}
				}}
			// Claim, commit and floor are enough for either record, and nothing is appended after it: an append would notice by
			// itself.
			n := s.start("a", t.TempDir(), func(c *Config) {
				c.JS, c.Trim, c.tail = js, tc.trim, tc.records
			})
			n.awaitOwned()
			s.commitOne("0/a.sst", "t.a")
			natstest.LoseEnd(t, s.JS, wire.ManifestStream, <-last-1)
			close(gone)
			s.Until("a purge by the next owner", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return purged
			})
			if all := s.catalog(); lost == 0 || len(all) != 1 || n.metric("dormouse_entries_lost_total") != 0 {
				t.Errorf("a record was lost in epoch %d; the archive has %v, %v entries count as lost", lost, all,
					n.metric("dormouse_entries_lost_total"))
			}
		})
	}
}

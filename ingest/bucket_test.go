package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/ingest/ingesttest"
	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/bucket/buckettest"
	"dormouse/store/identity"
)

// TestMissingCheckpointIsNamed takes the checkpoint out of the bucket. Who needs it says so, and which one it
// is, for as long as it is missing, and counts that it cannot own the shard; when it is there again the shard is owned.
// However often it tries in a minute, its log has one line of each concern.
func TestMissingCheckpointIsNamed(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), often)
	s.checkpointOf(n)
	n.stop()
	object := s.newestCheckpoint().Object
	data, err := s.Bucket.Get(t.Context(), object)
	if err == nil {
		err = s.Bucket.Delete(t.Context(), object.Key)
	}
	if err != nil {
		t.Fatal(err)
	}
	key := object.Key
	var log ingesttest.Log
	n = s.start("b", t.TempDir(), func(c *Config) {
		often(c)
		c.Lease, c.Logger = time.Second, slog.New(slog.NewJSONHandler(&log, nil))
	})
	said := func() bool {
		err := n.node.Ready()
		return err != nil && strings.Contains(err.Error(), key) && strings.Contains(err.Error(), "restore it")
	}
	s.Until("it to name the object", said)
	s.Until("it to try again", func() bool { return said() && n.metric("dormouse_claims_failed_total") >= 3 })
	messages := make(map[string]int)
	named := false
	for _, line := range log.Lines(t, "") {
		messages[line["msg"].(string)]++
		named = named || strings.Contains(fmt.Sprint(line["error"]), key)
	}
	for message, n := range messages {
		if n > 1 {
			t.Errorf("%d lines say: %s", n, message)
		}
	}
	if !named {
		t.Errorf("no line names the object: %v", messages)
	}
	if err := s.Bucket.Put(t.Context(), object.Key, data); err != nil {
		t.Fatal(err)
	}
	n.awaitOwned()
	if err := n.node.Ready(); err != nil {
		t.Error(err)
	}
}

// TestPartIsPutAgainUnderItsName: what seemed to fail may have been stored, and is no orphan then.
func TestPartIsPutAgainUnderItsName(t *testing.T) {
	s := newSystem(t)
	bucket := &putting{Archive: s.Archive, puts: &buckettest.Faulty{Bucket: s.Bucket}}
	bucket.puts.Next(buckettest.Fail, buckettest.Lose)
	n := s.start("a", t.TempDir(), func(c *Config) { often(c); c.Bucket = bucket })
	s.checkpointOf(n)
	n.stop()
	if keys := bucket.keys; len(keys) < 3 || len(slices.Compact(keys[:3])) != 1 {
		t.Errorf("the first part was put as %v", keys)
	}
}

// putting is a bucket whose puts may fail.
type putting struct {
	*ingesttest.Archive
	puts *buckettest.Faulty
	keys []string // that were put; checkpoints are taken one at a time
}

func (p *putting) Put(ctx context.Context, key string, data []byte) error {
	p.keys = append(p.keys, key)
	return p.puts.Put(ctx, key, data)
}

// TestSegmentInAnotherBucket: an owner commits nothing that its readers would look for in vain.
func TestSegmentInAnotherBucket(t *testing.T) {
	s := newSystem(t)
	n := s.start("a", t.TempDir(), func(c *Config) {
		c.Accepts = func(_ context.Context, id string) error {
			switch id {
			case "ours":
				return nil
			case "later":
				return errors.New("JetStream does not answer")
			}
			return fmt.Errorf("%w: it is another one", identity.ErrRefused)
		}
	})
	n.awaitOwned()
	s.Publish("logs.t.a", "one")
	s.TakeReady("t.a")
	_, extents := s.Drain("t.a")
	for _, c := range []struct {
		id   string
		want error
	}{{"other", wire.ErrBadRequest}, {"", wire.ErrBadRequest}, {"later", wire.ErrFailed}, {"ours", nil}} {
		var reply wire.CommitReply
		s.Archive.Has("0/in-"+c.id+".sst", extents)
		request := wire.CommitRequest{Segment: extent.Segment{Key: "0/in-" + c.id + ".sst", Size: 1}, Extents: extents,
			Bucket: c.id}
		if err := s.Ask(wire.OpCommit, request, &reply); err != nil || !errors.Is(reply.Err(), c.want) ||
			len(reply.Refused) > 0 {
			t.Errorf("%q: %v, %v, want %v", c.id, err, reply.Err(), c.want)
		}
	}
	if got := s.Archived("t.a"); len(got) != 1 {
		t.Errorf("%d entries are archived, want 1", len(got))
	}
}

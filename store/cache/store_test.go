package cache

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/goleak"

	"dormouse/internal/codec"
	"dormouse/internal/shardid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPositionSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := db.Position(7); err != nil || p != (Position{}) {
		t.Fatalf("an unknown shard has position %+v, %v", p, err)
	}
	want := Position{Source: time.Unix(1, 2).UTC(), Applied: 5, AppliedTime: time.Unix(3, 456789).UTC(), ManifestSeq: 6,
		Floor: 3}
	batch := db.NewBatch()
	if err := SetPosition(batch, 7, want); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(batch.Commit(pebble.NoSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	got, err := db.Position(7)
	if err != nil || !got.AppliedTime.Equal(want.AppliedTime) || !got.Source.Equal(want.Source) || got.Applied != 5 ||
		got.Floor != 3 {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestForgetTouchesOneShardOnly(t *testing.T) {
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	batch := db.NewBatch()
	defer batch.Close()
	const middle = shardid.Shard(255) // its end carries over into the next byte
	for _, shard := range []shardid.Shard{middle - 1, middle, middle + 1} {
		for _, space := range []byte{SpaceBuffer, SpaceRecent} {
			if err := batch.Set(append(Prefix(space, shard), 'k'), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Forget(batch, middle); err != nil {
		t.Fatal(err)
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	it, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
		for _, space := range []byte{SpaceBuffer, SpaceRecent} {
			if strings.HasPrefix(string(it.Key()), string(Prefix(space, middle))) {
				t.Errorf("key %x of the forgotten shard is still there", it.Key())
			}
		}
	}
	if n != 4 {
		t.Fatalf("%d keys left, want 4", n)
	}
}

// TestForgottenPosition: nothing is left of a shard that is forgotten; and the highest shard has an end too.
func TestForgottenPosition(t *testing.T) {
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range []shardid.Shard{3, ^shardid.Shard(0)} {
		batch := db.NewBatch()
		err := errors.Join(SetPosition(batch, shard, Position{Applied: 7}),
			batch.Set(append(Prefix(SpaceBuffer, shard), 0xFF, 0xFF), nil, nil), SetPosition(batch, 2, Position{Applied: 1}),
			Forget(batch, shard), batch.Commit(pebble.NoSync), batch.Close())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := db.Position(shard); err != nil || p != (Position{}) {
			t.Errorf("shard %s has position %+v, %v", shard, p, err)
		}
		if p, err := db.Position(2); err != nil || p.Applied != 1 {
			t.Errorf("another shard has position %+v, %v", p, err)
		}
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: Prefix(SpaceBuffer, shard),
			UpperBound: []byte{SpaceBuffer + 1}})
		if err != nil {
			t.Fatal(err)
		}
		if it.First() {
			t.Errorf("shard %s has key %x", shard, it.Key())
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	batch := db.NewBatch()
	if err := db.Close(); err == nil {
		t.Fatal("closed with a batch open")
	}
	if err := errors.Join(batch.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptCacheIsMovedAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no MANIFEST in %s: %v", dir, err)
	}
	for _, name := range manifests {
		if err := os.WriteFile(name, []byte(strings.Repeat("not a manifest ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if db, err = Open(dir, Options{}); err != nil {
		t.Fatalf("a corrupt cache must be begun anew, got %v", err)
	}
	defer db.Close()
	if _, err := os.Stat(dir + ".corrupt"); err != nil {
		t.Fatalf("the corrupt cache was not kept aside: %v", err)
	}
}

func TestOpenTwiceIsRefused(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if second, err := Open(dir, Options{}); err == nil {
		second.Close()
		t.Fatal("a second opener got the same directory")
	} else if !strings.Contains(err.Error(), "another process") {
		t.Fatalf("error %q does not say what to look for", err)
	}
}

// TestRest lets a database rest while others use it: nothing that was written is lost, whoever uses it waits, and it
// does not rest under anybody's hands.
func TestRest(t *testing.T) {
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	batch := db.NewBatch()
	if rested, err := db.Rest(); rested || err != nil {
		t.Fatalf("it rested with a batch open: %v, %v", rested, err)
	}
	if err := batch.Close(); err != nil {
		t.Fatal(err)
	}
	const writers, writes = 4, 20
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for n := range writes {
				outer := db.NewBatch()
				err := SetPosition(outer, shardid.Shard(w), Position{Applied: uint64(n + 1)})
				if err == nil {
					_, err = db.Position(shardid.Shard(w)) // uses it twice at a time
				}
				if err == nil {
					err = outer.Commit(pebble.NoSync)
				}
				if err := errors.Join(err, outer.Close()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	rests := 0
	for working := true; working || rests == 0; {
		select {
		case <-done:
			working = false
		default:
		}
		rested, err := db.Rest()
		if err != nil {
			t.Fatal(err)
		}
		if rested {
			rests++
		}
	}
	uses := db.Uses()
	for w := range writers {
		if p, err := db.Position(shardid.Shard(w)); err != nil || p.Applied != writes {
			t.Errorf("after %d rests, writer %d is at %d, want %d (%v)", rests, w, p.Applied, writes, err)
		}
	}
	if db.Uses() == uses {
		t.Error("uses are not counted")
	}
}

// FuzzPosition: what a damaged cache has for a position is an error, or a position that can be written again.
func FuzzPosition(f *testing.F) {
	data, err := codec.Encode(Position{Source: time.Unix(1, 2), Applied: 3, ManifestSeq: 4, ManifestID: "id", Floor: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, again Position
		if codec.Decode(data, &p) != nil {
			return
		}
		encoded, err := codec.Encode(p)
		if err == nil {
			err = codec.Decode(encoded, &again)
		}
		if err != nil || !again.Source.Equal(p.Source) || again.Applied != p.Applied || again.ManifestID != p.ManifestID ||
			again.Floor != p.Floor {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

// TestGetReturnsACopy: Pebble may use the memory of a value again once it was let go.
func TestGetReturnsACopy(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "cache"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key := Prefix(spaceMeta, 1)
	batch := db.NewBatch()
	if err := errors.Join(batch.Set(key, []byte("value"), nil), batch.Commit(pebble.NoSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	one, err := db.get(key)
	if err != nil {
		t.Fatal(err)
	}
	one[0] = 'V'
	if two, err := db.get(key); err != nil || string(two) != "value" {
		t.Errorf("the value is %q, %v", two, err)
	}
}

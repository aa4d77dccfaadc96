// Package buckettest holds what tests of several packages need of a bucket: the suite that every kind of bucket must
// pass, and a bucket that fails on purpose. It is imported by tests only.
//
// Open conformance.go for the promises of store/bucket, faulty.go and s3.go for the failures.
package buckettest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// timeout bounds each test's calls to the bucket.
const timeout = 30 * time.Second

// Conformance runs every promise of bucket.Bucket against buckets that open makes. Each call of open must return an
// empty bucket, and see to its closing.
func Conformance(t *testing.T, open func(t *testing.T) *bucket.Bucket) {
	for name, test := range map[string]func(*testing.T, context.Context, *bucket.Bucket){
		"PutThenRead":             putThenRead,
		"NeverOverwrites":         neverOverwrites,
		"TheSamePutAgain":         theSamePutAgain,
		"SmallObjectsWhole":       smallObjectsWhole,
		"OneOfManyPutsWins":       oneOfManyPutsWins,
		"MissingIsNamed":          missingIsNamed,
		"Deletes":                 deletes,
		"ListsInOrder":            listsInOrder,
		"ListsWhileOthersPut":     listsWhileOthersPut,
		"RefusesBadKeys":          refusesBadKeys,
		"EndsWithItsContext":      endsWithItsContext,
		"ShorterThanExpected":     shorterThanExpected,
		"IsReachable":             isReachable,
		"HoldsSegments":           holdsSegments,
		"LargeObjectInOneRequest": largeObject,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			defer cancel()
			test(t, ctx, open(t))
		})
	}
}

func put(t *testing.T, ctx context.Context, b *bucket.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Put(ctx, key, data); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, ctx context.Context, b *bucket.Bucket, key string) []byte {
	t.Helper()
	o, err := b.Object(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, o.Size())
	if err := errors.Join(o.ReadAt(ctx, data, 0), o.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func putThenRead(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	data := []byte("0123456789")
	put(t, ctx, b, "7/a.sst", data)
	if got := read(t, ctx, b, "7/a.sst"); !bytes.Equal(got, data) {
		t.Fatalf("read %q", got)
	}
	o, err := b.Segment(extent.Segment{Key: "7/a.sst", Size: 10})
	if err != nil || o.Size() != 10 {
		t.Fatal(o, err)
	}
	part := make([]byte, 3)
	for off, want := range map[int64]string{0: "012", 4: "456", 7: "789"} {
		if err := o.ReadAt(ctx, part, off); err != nil || string(part) != want {
			t.Fatalf("at %d: %q, %v", off, part, err)
		}
	}
}

func neverOverwrites(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	put(t, ctx, b, "7/a.sst", []byte("first"))
	err := b.Put(ctx, "7/a.sst", []byte("second"))
	if !errors.Is(err, bucket.ErrExists) || !strings.Contains(err.Error(), "7/a.sst") {
		t.Fatalf("got %v, want ErrExists with the key", err)
	}
	if got := read(t, ctx, b, "7/a.sst"); string(got) != "first" {
		t.Fatalf("read %q", got)
	}
}

// theSamePutAgain: a put whose answer was lost is put again, and finds its own object.
func theSamePutAgain(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	for _, data := range [][]byte{[]byte("first"), nil, bytes.Repeat([]byte("0123456789abcdef"), 1<<14)} {
		key := fmt.Sprintf("7/%d.sst", len(data))
		put(t, ctx, b, key, data)
		put(t, ctx, b, key, data)
		other := append(bytes.Clone(data), 'x') // of another size, and of the same one
		for _, other := range [][]byte{other, append(bytes.Clone(data[:max(len(data), 1)-1]), 'X')} {
			if err := b.Put(ctx, key, other); !errors.Is(err, bucket.ErrExists) {
				t.Errorf("%d other bytes over %d: %v, want ErrExists", len(other), len(data), err)
			}
		}
		if got := read(t, ctx, b, key); !bytes.Equal(got, data) {
			t.Errorf("%s holds something else now", key)
		}
	}
}

func smallObjectsWhole(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	put(t, ctx, b, "a.json", []byte("0123456789"))
	if got, err := b.GetSmall(ctx, "a.json", 10); err != nil || string(got) != "0123456789" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.GetSmall(ctx, "a.json", 9); !errors.Is(err, bucket.ErrTooLarge) {
		t.Errorf("of a larger one: %v", err)
	}
	if _, err := b.GetSmall(ctx, "7/none.sst", 9); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	if _, err := b.GetSmall(ctx, "../a", 9); !errors.Is(err, bucket.ErrKey) {
		t.Errorf("of a bad key: %v", err)
	}
}

func oneOfManyPutsWins(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = b.Put(ctx, "7/a.sst", []byte(fmt.Sprint(i))) })
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Fatalf("puts %d and %d of one key both succeeded", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, bucket.ErrExists):
			t.Errorf("put %d: %v", i, err)
		}
	}
	if won < 0 {
		t.Fatal("no put succeeded")
	}
	if got := read(t, ctx, b, "7/a.sst"); string(got) != fmt.Sprint(won) {
		t.Fatalf("put %d succeeded, but the object holds %q", won, got)
	}
}

// deletes: what is deleted is gone for readers and lists, its neighbours stay, and its key can be put again.
func deletes(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	for _, key := range []string{"7/a.sst", "7/b.sst", "7/b.sst.old"} {
		put(t, ctx, b, key, []byte(key))
	}
	for range 2 { // what is not there is deleted as well
		if err := b.Delete(ctx, "7/b.sst"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Object(ctx, "7/b.sst"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("a deleted object: %v", err)
	}
	var left []string
	for o, err := range b.List(ctx, "7/") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, o.Key)
	}
	if !reflect.DeepEqual(left, []string{"7/a.sst", "7/b.sst.old"}) {
		t.Errorf("left are %v", left)
	}
	put(t, ctx, b, "7/b.sst", []byte("another"))
	if got := read(t, ctx, b, "7/b.sst"); string(got) != "another" {
		t.Errorf("read %q", got)
	}
	if err := b.Delete(ctx, "../b"); !errors.Is(err, bucket.ErrKey) {
		t.Errorf("a key that cannot be: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Delete(ended, "7/a.sst"); err == nil {
		t.Error("it deletes after its context")
	}
}

func missingIsNamed(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	_, err := b.Object(ctx, "7/none.sst")
	mustBeMissing(t, b, err)
	o, err := b.Segment(extent.Segment{Key: "7/none.sst", Size: 10})
	if err != nil {
		t.Fatal(err)
	}
	mustBeMissing(t, b, o.ReadAt(ctx, make([]byte, 4), 0))
}

func mustBeMissing(t *testing.T, b *bucket.Bucket, err error) {
	t.Helper()
	if !errors.Is(err, bucket.ErrNotFound) || !strings.Contains(err.Error(), "7/none.sst") ||
		!strings.Contains(err.Error(), b.URL()) {
		t.Fatalf("got %v, want ErrNotFound with key and bucket", err)
	}
}

func listsInOrder(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	for _, key := range []string{"8/a.sst", "7/b.sst", "7/a.sst", "70/a.sst", "7.json"} {
		put(t, ctx, b, key, []byte(key))
	}
	for prefix, want := range map[string][]extent.Segment{
		"7/":  {{Key: "7/a.sst", Size: 7}, {Key: "7/b.sst", Size: 7}},
		"9/":  nil,
		"7":   {{Key: "7.json", Size: 6}, {Key: "7/a.sst", Size: 7}, {Key: "7/b.sst", Size: 7}, {Key: "70/a.sst", Size: 8}},
		"7/b": {{Key: "7/b.sst", Size: 7}},
		"": {{Key: "7.json", Size: 6}, {Key: "7/a.sst", Size: 7}, {Key: "7/b.sst", Size: 7}, {Key: "70/a.sst", Size: 8},
			{Key: "8/a.sst", Size: 7}},
	} {
		var got []extent.Segment
		for s, err := range b.List(ctx, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("list of %q: %v, want %v", prefix, got, want)
		}
	}
}

func listsWhileOthersPut(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				if err := b.Put(ctx, fmt.Sprintf("%d/%02d.sst", i, n), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	for last := false; !last; {
		select {
		case <-done:
			last = true
		default:
		}
		listed, before := 0, ""
		for s, err := range b.List(ctx, "") {
			if err != nil || s.Key <= before {
				t.Fatalf("%q after %q, %v", s.Key, before, err)
			}
			listed, before = listed+1, s.Key
		}
		if last && listed != 200 {
			t.Errorf("%d objects are listed of 200", listed)
		}
	}
}

func refusesBadKeys(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	bad := []string{"", "/a", "a/", "a//b", "..", "../a", "a/../../b", ".put-1", "7/.put-1", "a b", "a\\b", "\xff"}
	for _, key := range bad {
		if err := b.Put(ctx, key, []byte("x")); !errors.Is(err, bucket.ErrKey) {
			t.Errorf("put %q: %v, want ErrKey", key, err)
		}
		if _, err := b.Object(ctx, key); !errors.Is(err, bucket.ErrKey) {
			t.Errorf("object %q: %v, want ErrKey", key, err)
		}
	}
}

func endsWithItsContext(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	put(t, ctx, b, "7/a.sst", []byte("x"))
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Put(over, "7/b.sst", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if _, err := b.Object(ctx, "7/b.sst"); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("a canceled put left an object: %v", err)
	}
	if err := b.Check(over); !errors.Is(err, context.Canceled) {
		t.Errorf("check: %v", err)
	}
	o, err := b.Object(ctx, "7/a.sst")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.ReadAt(over, make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
}

func shorterThanExpected(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	put(t, ctx, b, "7/a.sst", []byte("0123456789"))
	o, err := b.Segment(extent.Segment{Key: "7/a.sst", Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{5, 50} {
		if err := o.ReadAt(ctx, make([]byte, 20), off); err == nil || errors.Is(err, bucket.ErrNotFound) {
			t.Errorf("reading at %d past the end: %v", off, err)
		}
	}
}

func isReachable(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	if err := b.Check(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.URL(), "://") {
		t.Fatalf("URL %q", b.URL())
	}
}

func holdsSegments(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	value := entry.AppendValue(nil, time.Unix(1, 0), nil, bytes.Repeat([]byte("log line "), 30))
	for seq := range uint64(3000) {
		if err := w.Add(entry.AppendKey(nil, "acme.web", seq+1), value); err != nil {
			t.Fatal(err)
		}
	}
	data, extents, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	put(t, ctx, b, "7/a.sst", data)
	o, err := b.Object(ctx, "7/a.sst")
	if err != nil {
		t.Fatal(err)
	}
	r, err := segment.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Verify(ctx, extents); err != nil {
		t.Fatal(err)
	}
	count := 0
	err = r.Scan(ctx, "acme.web", 0, math.MaxUint64, func(entry.Entry) error { count++; return nil })
	if err != nil || count != 3000 {
		t.Fatalf("%d entries, %v", count, err)
	}
}

func largeObject(t *testing.T, ctx context.Context, b *bucket.Bucket) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 9<<20/16)
	put(t, ctx, b, "7/a.sst", data)
	if got := read(t, ctx, b, "7/a.sst"); !bytes.Equal(got, data) {
		t.Fatal("read something else")
	}
	data[len(data)-1]++
	if err := b.Put(ctx, "7/a.sst", data); !errors.Is(err, bucket.ErrExists) {
		t.Fatalf("got %v, want ErrExists", err)
	}
}

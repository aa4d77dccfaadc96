package bucket_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"dormouse/store/bucket"
	"dormouse/store/bucket/buckettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openAt(t *testing.T, url string) *bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestMemory(t *testing.T) {
	buckettest.Conformance(t, func(t *testing.T) *bucket.Bucket { return openAt(t, "mem://") })
}

func TestFolder(t *testing.T) {
	buckettest.Conformance(t, func(t *testing.T) *bucket.Bucket {
		return openAt(t, "file://"+filepath.Join(t.TempDir(), "data", "archive"))
	})
}

func TestRelativeFolderHasAnAbsoluteURL(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	b := openAt(t, "file://./data/archive")
	if want := "file://" + filepath.Join(dir, "data/archive"); b.URL() != want {
		t.Fatalf("URL %s, want %s", b.URL(), want)
	}
	if err := b.Put(context.Background(), "7/a.sst", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data/archive/7/a.sst")); err != nil {
		t.Fatal(err)
	}
}

// TestLeftoverIsNoObject: what a crash in the middle of a put leaves in the folder is not listed.
func TestLeftoverIsNoObject(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, "file://"+dir)
	if err := b.Put(context.Background(), "7/a.sst", []byte("x")); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "7", "*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("a put leaves %v, %v", names, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "7", ".put-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for o, err := range b.List(context.Background(), "7/") {
		if err != nil || o.Key != "7/a.sst" {
			t.Fatalf("listed %v, %v", o, err)
		}
	}
}

func TestFolderThatWentAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	b := openAt(t, "file://"+dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(context.Background()); err == nil || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
}

func TestFaulty(t *testing.T) { synctest.Test(t, testFaulty) }

func testFaulty(t *testing.T) {
	ctx := context.Background()
	b := openAt(t, "mem://")
	f := &buckettest.Faulty{Bucket: b}
	f.Next(buckettest.Fail, buckettest.Lose, buckettest.Hang, buckettest.Delay)
	if err := f.Put(ctx, "a", nil); !errors.Is(err, buckettest.ErrFault) {
		t.Fatal(err)
	}
	if err := f.Put(ctx, "b", nil); !errors.Is(err, buckettest.ErrFault) {
		t.Fatal(err)
	}
	if _, err := b.Object(ctx, "b"); err != nil {
		t.Fatalf("an object whose answer is lost must be there: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	if err := f.Put(short, "c", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	delayed := make(chan error)
	go func() { delayed <- f.Put(ctx, "d", nil) }()
	synctest.Wait()
	if f.Puts() != 4 {
		t.Fatalf("%d puts have begun, want 4", f.Puts())
	}
	f.Release()
	if err := <-delayed; err != nil {
		t.Fatal(err)
	}
	if err := f.Put(ctx, "e", nil); err != nil {
		t.Fatal(err)
	}
}

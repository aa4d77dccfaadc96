package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dormouse/store/bucket"
	"dormouse/store/bucket/buckettest"
)

// startS3 starts a server and returns it with the URL of its bucket.
func startS3(t *testing.T) (*buckettest.S3, string) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_MAX_ATTEMPTS", "2") // one try again is what matters, and comes soon
	s, err := buckettest.NewS3()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, fmt.Sprintf("s3://%s/some/prefix?endpoint=%s", buckettest.S3Bucket, server.URL)
}

func TestS3(t *testing.T) {
	buckettest.Conformance(t, func(t *testing.T) *bucket.Bucket {
		_, url := startS3(t)
		return openAt(t, url)
	})
}

// TestAnswerOfAPutIsLost: the library that speaks S3 puts again by itself and meets its own object.
func TestAnswerOfAPutIsLost(t *testing.T) {
	s, url := startS3(t)
	b := openAt(t, url)
	if err := b.Put(t.Context(), "7/b.sst", []byte("others")); err != nil {
		t.Fatal(err)
	}
	s.Set(buckettest.S3Faults{LoseAnswers: true})
	if err := b.Put(t.Context(), "7/a.sst", []byte("segment")); err != nil || s.Puts() != 3 {
		t.Errorf("%v after %d puts, want success after 3", err, s.Puts())
	}
	if err := b.Put(t.Context(), "7/b.sst", []byte("mine!!")); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("over another object: %v", err)
	}
}

// TestWhatAServerCannotDo: errors say which permission or ability is missing, and wrong bytes are never taken.
func TestWhatAServerCannotDo(t *testing.T) {
	s, url := startS3(t)
	b := openAt(t, url)
	if err := b.Put(t.Context(), "7/a.sst", []byte("0123456789")); err != nil {
		t.Fatal(err)
	}
	tell := func(faults buckettest.S3Faults, is error, want string, do func() error) {
		t.Helper()
		s.Set(faults)
		if err := do(); !errors.Is(err, is) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v does not say %q", faults, err, want)
		}
	}
	put := func() error { return b.Put(t.Context(), "7/b.sst", []byte("x")) }
	tell(buckettest.S3Faults{NoConditions: true}, bucket.ErrUnable, "If-None-Match", put)
	tell(buckettest.S3Faults{DenyPuts: true}, bucket.ErrDenied, "not allowed to put objects", put)
	tell(buckettest.S3Faults{DenyLists: true}, bucket.ErrDenied, "not allowed to check", func() error {
		return b.Check(t.Context())
	})
	o, err := b.Object(t.Context(), "7/a.sst")
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 3, 6} {
		tell(buckettest.S3Faults{IgnoreRanges: true}, bucket.ErrUnable, "Range", func() error {
			return o.ReadAt(t.Context(), make([]byte, 4), off)
		})
	}
	whole := make([]byte, 10)
	if err := o.ReadAt(t.Context(), whole, 0); err != nil || string(whole) != "0123456789" {
		t.Errorf("the whole object, of which nothing is wrong: %q, %v", whole, err)
	}
	s.Set(buckettest.S3Faults{})
	missing := openAt(t, strings.Replace(url, "s3://logs", "s3://none", 1))
	if err := missing.Put(t.Context(), "7/b.sst", nil); !errors.Is(err, bucket.ErrNotFound) ||
		!strings.Contains(err.Error(), "the bucket does not exist") {
		t.Errorf("a bucket that is not there: %v", err)
	}
}

// TestURLOfAnErrorHidesSecrets: the bucket library quotes the URL that it cannot open.
func TestURLOfAnErrorHidesSecrets(t *testing.T) {
	_, err := bucket.Open(context.Background(), "s3://b?endpoint=http://u:secret@h:1&fips=perhaps")
	if !errors.Is(err, bucket.ErrURL) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// TestURLOverrulesTheEnvironment: what a reader is told holds, whatever its own environment says.
func TestURLOverrulesTheEnvironment(t *testing.T) {
	_, url := startS3(t)
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
	t.Setenv("AWS_REGION", "eu-west-1")
	b := openAt(t, url)
	if err := b.Put(t.Context(), "7/a.sst", []byte("x")); err != nil {
		t.Error(err)
	}
	if strings.Contains(b.URL(), "127.0.0.1%3A1&") {
		t.Errorf("readers are told %s", b.URL())
	}
}

// TestTheLibraryIsQuiet: what the library that speaks S3 wants to say would be in the way of logs and output.
func TestTheLibraryIsQuiet(t *testing.T) {
	s, url := startS3(t)
	place, endpoint, _ := strings.Cut(url, "?endpoint=")
	t.Setenv("AWS_ENDPOINT_URL_S3", endpoint)
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = said
	defer func() { os.Stderr = stderr; _ = said.Close() }()
	s.Set(buckettest.S3Faults{LoseAnswers: true})
	if err := openAt(t, url).Put(t.Context(), "7/a.sst", []byte("segment")); err != nil {
		t.Error(err)
	}
	s.Set(buckettest.S3Faults{})
	for _, url := range []string{url, place + "?region=x&use_path_style=true"} {
		if _, err := openAt(t, url).GetSmall(t.Context(), "7/a.sst", 100); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(said.Name()); err != nil || len(text) > 0 {
		t.Errorf("standard error has %q, %v", text, err)
	}
}

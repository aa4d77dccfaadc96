package archive

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestWrongURLsSayWhatToTry(t *testing.T) {
	for raw, want := range map[string]string{
		"":                       "file:///absolute/folder",
		"data/archive":           "file:///absolute/folder",
		"/data/archive":          "file:///absolute/folder",
		"file://":                "needs a folder",
		"file://data/archive":    "write file:///data/archive or file://./data/archive",
		"file:///x?create_dir=1": "no parameters",
		"file:///dev/null/sub":   "cannot make folder",
		"s3://":                  "needs a bucket name",
		"s3:///prefix":           "needs a bucket name",
		"s3://key:secret@bucket": "by the environment",
		"s3://bucket?regoin=x":   "regoin",
		"s4://bucket":            "s3://bucket/prefix",
		"mem://name":             "takes no name",
		"%zz":                    "does not parse",
	} {
		_, err := Open(context.Background(), raw)
		if !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v does not say %q", raw, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the secret: %v", raw, err)
		}
	}
}

func TestPublicURL(t *testing.T) {
	for raw, want := range map[string]string{
		"mem://":                         "mem://",
		"file:///a/../b":                 "file:///b",
		"file://localhost/b/":            "file:///b",
		"s3://b/pre/fix/?region=eu":      "s3://b/pre/fix?region=eu",
		"s3://b?kmskeyid=k&profile=me":   "s3://b",
		"s3://b?endpoint=http://u:p@h:1": "s3://b?endpoint=http%3A%2F%2Fh%3A1",
		"gs://b/p":                       "gs://b/p",
		"azblob://c?storage_account=acc": "azblob://c?storage_account=acc",
	} {
		p, err := parseURL(raw)
		if err != nil || p.public() != want {
			t.Errorf("%q: %q, %v, want %q", raw, p.public(), err, want)
		}
	}
}

func TestS3Defaults(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	query := func(raw string) url.Values {
		p, err := parseURL(raw)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(p.driverURL())
		if err != nil || u.Host != "b" || u.Path != "" {
			t.Fatal(u, err)
		}
		return u.Query()
	}
	if q := query("s3://b/p"); q.Get("region") != defaultRegion || q.Has("use_path_style") {
		t.Errorf("without endpoint: %v", q)
	}
	q := query("s3://b?endpoint=http://h:1&use_path_style=false")
	if q.Get("use_path_style") != "false" || q.Get("hostname_immutable") != "true" || q.Get("region") == "" {
		t.Errorf("with endpoint: %v", q)
	}
	t.Setenv("AWS_REGION", "eu-west-1")
	if q := query("s3://b"); q.Has("region") {
		t.Errorf("the environment's region is overridden: %v", q)
	}
}

// TestS3RequestsAreForTheGivenEndpoint: a put goes in one request to the given server, in path style, under the prefix,
// and only if there is no such object; a bucket that does not answer ends with the context.
func TestS3RequestsAreForTheGivenEndpoint(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	requests := make(chan *http.Request, 8)
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		requests <- r
		if r.Method != http.MethodPut {
			<-stop
		}
	}))
	defer server.Close()
	defer close(stop)
	b, err := Open(context.Background(), "s3://bucket/some/prefix?endpoint="+server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Put(context.Background(), "7/a.sst", make([]byte, 9<<20)); err != nil {
		t.Fatal(err)
	}
	r := <-requests
	if r.Method != http.MethodPut || r.URL.Path != "/bucket/some/prefix/7/a.sst" || r.Header.Get("If-None-Match") != "*" ||
		len(requests) > 0 {
		t.Fatalf("%s %s %v and %d more", r.Method, r.URL, r.Header, len(requests))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Check(ctx) }()
	<-requests
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

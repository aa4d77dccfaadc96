package bucket

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

func TestWrongURLsSayWhatToTry(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                   "file:///absolute/folder",
		"data/archive":                       "file:///absolute/folder",
		"/data/archive":                      "file:///absolute/folder",
		"file://":                            "needs a folder",
		"file://data/archive":                "write file:///data/archive or file://./data/archive",
		"file:///x?create_dir=1":             "no parameters",
		"file:///dev/null/sub":               "cannot make folder",
		"s3://":                              "needs a bucket name",
		"s3:///prefix":                       "needs a bucket name",
		"s3://key:secret@bucket":             "by the environment",
		"s3://bucket?regoin=x":               "regoin",
		"s4://bucket":                        "s3://bucket/prefix",
		"mem://name":                         "takes no name",
		"%zz":                                "does not parse",
		"file:///x/run#7/archive":            "%23",
		"file:///x#":                         "%23",
		"file:///x?":                         "%3F",
		"file:///x%2Fy":                      "%2F",
		"s3://b/team#1?region=eu":            "%23",
		"s3://b/a%2fb":                       "%2F",
		"s3://b//":                           "two slashes",
		"s3://b/a//b":                        "two slashes",
		"s3://b/a//":                         "two slashes",
		"s3://b/.":                           "ends with a dot",
		"s3://b/..":                          "ends with a dot",
		"s3://b/a/../b":                      "ends with a dot",
		"s3://b/prod.":                       "ends with a dot",
		"s3://b/a%5Cb":                       "not every store keeps",
		"s3://b/a%00b":                       "not every store keeps",
		"s3://b/a%FF":                        "not every store keeps",
		"s3://../b":                          "no name of a bucket",
		"s3://b:80/x":                        "no name of a bucket",
		"s3://b?endpoint=":                   "not an empty one",
		"s3://b?region=a&region=b":           "one value",
		"s3://b?region=a;endpoint=b":         "do not parse",
		"s3://b?endpoint=localhost:9000":     "like http://host:port",
		"s3://b?endpoint=http://h/?k=secret": "like http://host:port",
		"s3://b?prefix=x":                    "into the path",
		"s3://b?key=x":                       "into the path",
		"s3://b?token=secret":                "token",
		"gs://b?region=x":                    "universe_domain",
		"s3://b?endpoint=http://u:secret@h:1&fips=x": "fips",
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
		"s3://b/.prod":                   "s3://b/.prod",
		"s3://b/a%20b%3Fc%25":            "s3://b/a%20b%3Fc%25",
		"file:///run%237/a%3F":           "file:///run%237/a%3F",
		"s3://b?endpoint=http://h&use_path_style=false&hostname_immutable=false&role=arn:x": "s3://b?endpoint=http%3A%2F%2Fh&hostname_immutable=false&use_path_style=false",
		"gs://b?universe_domain=u&access_id=a&zonal=true":                                   "gs://b?universe_domain=u&zonal=true",
		"azblob://c?domain=d&protocol=http&cdn=true&localemu=false":                         "azblob://c?cdn=true&domain=d&localemu=false&protocol=http",
	} {
		p, err := parseURL(raw)
		if err != nil || p.public() != want {
			t.Errorf("%q: %q, %v, want %q", raw, p.public(), err, want)
		}
		if again, err := parseURL(p.public()); err != nil || again.public() != want || again.prefix != p.prefix ||
			again.folder != p.folder {
			t.Errorf("%q is another place when it is read again: %+v, %v", want, again, err)
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
	if q.Get("use_path_style") != "false" || q.Get("hostname_immutable") != "false" || q.Get("region") == "" {
		t.Errorf("with the bucket in the host's name: %v", q)
	}
	q = query("s3://b?endpoint=http://h:1")
	if q.Get("use_path_style") != "true" || q.Get("hostname_immutable") != "true" {
		t.Errorf("with endpoint: %v", q)
	}
	q = query("s3://b?endpoint=http://h:1&s3ForcePathStyle=false")
	if q.Has("use_path_style") || q.Get("hostname_immutable") != "false" {
		t.Errorf("with the old name of the parameter: %v", q)
	}
	t.Setenv("AWS_REGION", "eu-west-1")
	if q := query("s3://b"); q.Has("region") {
		t.Errorf("the environment's region is overridden: %v", q)
	}
}

// TestEnvironmentIsInTheURL: readers elsewhere are told what only this process's environment says of the place.
func TestEnvironmentIsInTheURL(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	for _, variable := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
		"AWS_PROFILE"} {
		t.Setenv(variable, "")
		os.Unsetenv(variable)
	}
	urlOf := func(raw string) string {
		t.Helper()
		b, err := Open(context.Background(), raw)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		return b.URL()
	}
	tell := func(raw, want string) {
		t.Helper()
		if got := urlOf(raw); got != want {
			t.Errorf("%s is %s, want %s", raw, got, want)
		} else if again := urlOf(got); again != want {
			t.Errorf("%s is %s to a reader", got, again)
		}
	}
	tell("s3://b/p", "s3://b/p?region=us-east-1")
	t.Setenv("AWS_REGION", "eu-west-1")
	tell("s3://b/p", "s3://b/p?region=eu-west-1")
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:7070")
	tell("s3://b", "s3://b?endpoint=http%3A%2F%2F127.0.0.1%3A7070&region=eu-west-1&use_path_style=true")
	t.Setenv("AWS_ENDPOINT_URL_S3", "https://user:secret@s3.example.com")
	tell("s3://b", "s3://b?endpoint=https%3A%2F%2Fs3.example.com&region=eu-west-1&use_path_style=false")
	t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
	tell("s3://b?endpoint=http://h&region=x", "s3://b?dualstack=true&endpoint=http%3A%2F%2Fh&region=x")
	t.Setenv("AZURE_STORAGE_ACCOUNT", "acc")
	t.Setenv("AZURE_STORAGE_KEY", "secret")
	t.Setenv("AZURE_STORAGE_DOMAIN", "blob.example.com")
	if p, err := parseURL("azblob://c?domain=d"); err != nil || p.public() != "azblob://c?domain=d&storage_account=acc" {
		t.Errorf("%s, %v", p.public(), err)
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

package archive

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"

	_ "gocloud.dev/blob/s3blob" // the driver of s3://; clouds.go has the others
)

// ErrURL is wrapped when Open is given a URL that it cannot use; the error says what to try.
var ErrURL = errors.New("wrong archive URL")

const urlHelp = "use file:///absolute/folder, file://./relative/folder, s3://bucket/prefix?region=...&endpoint=..., " +
	"gs://bucket/prefix, azblob://container/prefix or mem://"

// defaultRegion is the S3 region when neither the URL nor the environment names one. S3-compatible servers mostly
// ignore it, but requests cannot be signed without.
const defaultRegion = "us-east-1"

// place is a parsed archive URL.
type place struct {
	scheme string
	folder string     // of file://, absolute
	bucket string     // of the others
	prefix string     // of the others, without slashes around it
	query  url.Values // of the others
}

func parseURL(raw string) (place, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return place{}, fmt.Errorf("%w: it does not parse: %s", ErrURL, urlHelp) // err may quote a secret
	}
	if u.User != nil {
		return place{}, fmt.Errorf("%w: credentials do not belong into it: give them by the environment", ErrURL)
	}
	switch u.Scheme {
	case "file":
		return parseFolder(u)
	case "mem":
		if u.Host != "" || strings.Trim(u.Path, "/") != "" {
			return place{}, fmt.Errorf("%w: mem:// takes no name: every opening is a new, empty bucket", ErrURL)
		}
		return place{scheme: u.Scheme}, nil
	case "s3", "gs", "azblob":
		if u.Host == "" {
			return place{}, fmt.Errorf("%w: %s:// needs a bucket name: %s", ErrURL, u.Scheme, urlHelp)
		}
		p := place{scheme: u.Scheme, bucket: u.Host, prefix: strings.Trim(path.Clean(u.Path), "/."), query: u.Query()}
		return p, nil
	case "":
		return place{}, fmt.Errorf("%w: %q has no scheme: for a folder write file:///absolute/folder or file://./relative",
			ErrURL, raw)
	}
	return place{}, fmt.Errorf("%w: scheme %q is not known: %s", ErrURL, u.Scheme, urlHelp)
}

func parseFolder(u *url.URL) (place, error) {
	name := u.Path
	switch u.Host {
	case "", "localhost":
		if strings.Trim(name, "/") == "" {
			return place{}, fmt.Errorf("%w: file:// needs a folder: %s", ErrURL, urlHelp)
		}
	case ".", "..":
		name = u.Host + name
	default:
		return place{}, fmt.Errorf("%w: file://%s%s takes %q for a host: write file:///%s%s or file://./%s%s",
			ErrURL, u.Host, name, u.Host, u.Host, name, u.Host, name)
	}
	if len(u.RawQuery) > 0 {
		return place{}, fmt.Errorf("%w: file:// takes no parameters", ErrURL)
	}
	folder, err := filepath.Abs(filepath.FromSlash(name))
	if err != nil {
		return place{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return place{scheme: "file", folder: folder}, nil
}

// public returns the URL without the parameters that may hold secrets: only where the bucket is stays.
func (p place) public() string {
	switch p.scheme {
	case "mem":
		return "mem://"
	case "file":
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(p.folder)}).String()
	}
	u := url.URL{Scheme: p.scheme, Host: p.bucket}
	if p.prefix != "" {
		u.Path = "/" + p.prefix
	}
	shown := url.Values{}
	for _, name := range []string{"region", "endpoint", "use_path_style", "storage_account", "domain"} {
		if v := p.query.Get(name); v != "" {
			shown.Set(name, withoutUser(v))
		}
	}
	u.RawQuery = shown.Encode()
	return u.String()
}

// withoutUser drops credentials from an endpoint.
func withoutUser(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return value
	}
	u.User = nil
	return u.String()
}

// driverURL is what the bucket library opens for schemes other than file and mem. With an endpoint of their own,
// S3-compatible servers are addressed in path style, and asked for no checksums that only the original computes.
func (p place) driverURL() string {
	query := url.Values{}
	for name, values := range p.query {
		query[name] = values
	}
	if p.scheme == "s3" {
		if query.Get("region") == "" && os.Getenv("AWS_REGION") == "" && os.Getenv("AWS_DEFAULT_REGION") == "" {
			query.Set("region", defaultRegion)
		}
		if query.Get("endpoint") != "" {
			setDefault(query, "use_path_style", "true")
			setDefault(query, "hostname_immutable", "true")
			setDefault(query, "request_checksum_calculation", "when_required")
			setDefault(query, "response_checksum_validation", "when_required")
		}
	}
	return (&url.URL{Scheme: p.scheme, Host: p.bucket, RawQuery: query.Encode()}).String()
}

func setDefault(query url.Values, name, value string) {
	if !query.Has(name) {
		query.Set(name, value)
	}
}

// openBlob opens what p names.
func (p place) openBlob(ctx context.Context) (*blob.Bucket, error) {
	switch p.scheme {
	case "file":
		return openFolder(p.folder)
	case "mem":
		return memblob.OpenBucket(&memblob.Options{NoMD5: true}), nil
	}
	if p.scheme != "s3" && !withClouds {
		return nil, fmt.Errorf("%w: this build has no driver for %s://: use a released binary, or `make build`, which has it",
			ErrURL, p.scheme)
	}
	b, err := blob.OpenBucket(ctx, p.driverURL())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrURL, p.public(), err)
	}
	if p.prefix != "" {
		b = blob.PrefixedBucket(b, p.prefix+"/")
	}
	return b, nil
}

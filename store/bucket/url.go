package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"gocloud.dev/blob"
	"gocloud.dev/blob/memblob"
)

// ErrURL is wrapped when Open is given a URL that it cannot use; the error says what to try.
var ErrURL = errors.New("wrong archive URL")

const urlHelp = "use file:///absolute/folder, file://./relative/folder, s3://bucket/prefix?region=...&endpoint=..., " +
	"gs://bucket/prefix, azblob://container/prefix or mem://"

// place is a parsed archive URL.
type place struct {
	scheme string
	folder string     // of file://, absolute
	bucket string     // of the others
	prefix string     // of the others, without slashes around it
	query  url.Values // of the others; each parameter is known, and has one value
}

// parseURL takes a URL to the letter or refuses it: what is dropped or rewritten in silence would let two archives meet
// in one place.
func parseURL(raw string) (place, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return place{}, fmt.Errorf("%w: it does not parse: %s", ErrURL, urlHelp) // err may quote a secret
	}
	switch {
	case u.User != nil:
		return place{}, fmt.Errorf("%w: credentials do not belong into it: give them by the environment", ErrURL)
	case strings.Contains(raw, "#"):
		return place{}, fmt.Errorf("%w: what follows a # would be dropped: write %%23 for a # in a name", ErrURL)
	case strings.Contains(strings.ToLower(u.EscapedPath()), "%2f"):
		return place{}, fmt.Errorf("%w: %%2F is no part of a name here: write / between names", ErrURL)
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
		return parseBucket(u)
	case "":
		return place{}, fmt.Errorf("%w: it has no scheme: for a folder write file:///absolute/folder or file://./relative",
			ErrURL)
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
	if u.RawQuery != "" || u.ForceQuery {
		return place{}, fmt.Errorf("%w: file:// takes no parameters: write %%3F for a ? in a name", ErrURL)
	}
	folder, err := filepath.Abs(filepath.FromSlash(name))
	if err != nil {
		return place{}, fmt.Errorf("%w: %w", ErrURL, err)
	}
	return place{scheme: "file", folder: folder}, nil
}

func parseBucket(u *url.URL) (place, error) {
	if u.Host == "" {
		return place{}, fmt.Errorf("%w: %s:// needs a bucket name: %s", ErrURL, u.Scheme, urlHelp)
	}
	if strings.ContainsFunc(u.Host, notInKey) || strings.Trim(u.Host, "._-") != u.Host {
		return place{}, fmt.Errorf("%w: %q is no name of a bucket", ErrURL, u.Host)
	}
	prefix, err := parsePrefix(u.Path)
	if err != nil {
		return place{}, err
	}
	query, err := parseParameters(u.Scheme, u.RawQuery)
	if err != nil {
		return place{}, err
	}
	return place{scheme: u.Scheme, bucket: u.Host, prefix: prefix, query: query}, nil
}

// parsePrefix returns the prefix without the slashes around it. Names that some store, or a proxy before it, takes for
// another place are refused: an S3 path is cleaned by many a server, and Azure drops dots at the end of a name.
func parsePrefix(path string) (string, error) {
	prefix := strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if prefix == "" && len(path) <= 1 {
		return "", nil
	}
	for name := range strings.SplitSeq(prefix, "/") {
		switch {
		case name == "":
			return "", fmt.Errorf("%w: the prefix %q has two slashes in a row", ErrURL, path)
		case strings.HasSuffix(name, "."):
			return "", fmt.Errorf("%w: a name of the prefix %q ends with a dot, which not every store keeps", ErrURL, path)
		case strings.ContainsFunc(name, notInPrefix):
			return "", fmt.Errorf("%w: a name of the prefix %q holds what not every store keeps", ErrURL, path)
		}
	}
	return prefix, nil
}

func notInPrefix(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f || r == utf8.RuneError }

// openBlob opens what p names, and returns where that is: with what the environment says of the place.
func (p place) openBlob(ctx context.Context, ready func(folder string) error) (*blob.Bucket, place, error) {
	switch p.scheme {
	case "file":
		b, err := openFolder(p.folder, ready)
		return b, p, err
	case "mem":
		return memblob.OpenBucket(&memblob.Options{NoMD5: true}), p, nil
	}
	if p.scheme != "s3" && !withClouds {
		return nil, p, fmt.Errorf("%w: this build has no driver for %s://: use a released binary, or `make build`, "+
			"which has it",
			ErrURL, p.scheme)
	}
	driven := p.driverURL()
	b, err := blob.OpenBucket(ctx, driven)
	if err != nil {
		// The library quotes the URL, which may hold a secret.
		return nil, p, fmt.Errorf("%w: %s: %s", ErrURL, p.public(), strings.ReplaceAll(err.Error(), driven, p.public()))
	}
	p = p.asOpened(b)
	if p.prefix != "" {
		b = blob.PrefixedBucket(b, p.prefix+"/")
	}
	return b, p, nil
}

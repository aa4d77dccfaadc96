package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Version is that of the form in which policies are kept.
const Version = 1

// MaxValue bounds an encoded policy, in bytes.
const MaxValue = 4096

// maxBy is how much is kept of the name of who has set a policy, in bytes.
const maxBy = 256

const forever = "forever"

// ErrNewer is wrapped by the errors of policies that a later version of the program has written.
var ErrNewer = errors.New("written by a newer version of dormouse")

// stored is a policy as it is kept: JSON, so that people can read it with the tools of NATS.
type stored struct {
	Version   int    `json:"version"`
	Pattern   string `json:"pattern"`
	Keep      string `json:"keep,omitempty"`
	KeepBytes uint64 `json:"keep_bytes,omitempty"`
	MaxDelay  string `json:"max_delay,omitempty"`
	MaxBytes  uint64 `json:"max_bytes,omitempty"`
	Rate      uint64 `json:"rate,omitempty"`
	By        string `json:"by,omitempty"`
}

// Encode returns the bytes of a valid rule. by says who has set it; it may be empty.
func Encode(r Rule, by string) ([]byte, error) {
	if err := r.Policy.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // patterns have >
	err := enc.Encode(stored{Version: Version, Pattern: string(r.Pattern), Keep: encodeDuration(r.Policy.Keep),
		KeepBytes: r.Policy.KeepBytes, MaxDelay: encodeDuration(r.Policy.MaxDelay), MaxBytes: r.Policy.MaxBytes,
		Rate: r.Policy.Rate, By: by[:min(len(by), maxBy)]})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// Decode reads what Encode wrote for a pattern. Another version and a setting that it does not know are refused, since
// a policy that is obeyed in part may be none.
func Decode(pattern Pattern, data []byte) (p Policy, by string, err error) {
	fail := func(err error) (Policy, string, error) {
		return Policy{}, "", fmt.Errorf("the policy of %s: %w", pattern, err)
	}
	if len(data) > MaxValue {
		return fail(fmt.Errorf("%w: %d bytes, the limit is %d", ErrInvalid, len(data), MaxValue))
	}
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	switch {
	case form.Version > Version:
		return fail(fmt.Errorf("%w: it has version %d, and this program knows %d", ErrNewer, form.Version, Version))
	case form.Version < Version:
		return fail(fmt.Errorf("%w: it has version %d, which never was", ErrInvalid, form.Version))
	}
	var s stored
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return fail(fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail(fmt.Errorf("%w: something follows it", ErrInvalid))
	}
	if s.Pattern != string(pattern) {
		return fail(fmt.Errorf("%w: it is one of %q", ErrInvalid, s.Pattern))
	}
	p = Policy{KeepBytes: s.KeepBytes, MaxBytes: s.MaxBytes, Rate: s.Rate}
	if p.Keep, err = decodeKeep(s.Keep); err != nil {
		return fail(err)
	}
	if p.MaxDelay, err = decodeDuration(s.MaxDelay); err != nil {
		return fail(err)
	}
	if err := p.Validate(); err != nil {
		return fail(err)
	}
	return p, s.By, nil
}

func encodeDuration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return FormatDuration(d)
}

func decodeKeep(s string) (time.Duration, error) {
	if s == forever {
		return Forever, nil
	}
	return decodeDuration(s)
}

func decodeDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := ParseDuration(s)
	if err != nil || d == 0 {
		return 0, fmt.Errorf("%w: %q is no duration", ErrInvalid, s)
	}
	return d, nil
}

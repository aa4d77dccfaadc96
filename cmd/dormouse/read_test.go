package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
)

func TestParseBound(t *testing.T) {
	now := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	for s, want := range map[string]struct {
		seq uint64
		at  time.Time
	}{
		"":                          {},
		"1":                         {seq: 1},
		"18446744073709551615":      {seq: 1<<64 - 1},
		"10m":                       {at: now.Add(-10 * time.Minute)},
		"0s":                        {at: now},
		"2026-01-30T07:00:00Z":      {at: now.Add(-25 * time.Hour)},
		"2026-01-30T08:00:00+01:00": {at: now.Add(-25 * time.Hour)},
		"2026-01-31T07:59:59.5Z":    {at: now.Add(-500 * time.Millisecond)},
	} {
		if seq, at, err := parseBound(s, now); err != nil || seq != want.seq || !at.Equal(want.at) {
			t.Errorf("%q is %d, %s, %v", s, seq, at, err)
		}
	}
	for _, s := range []string{"0", "-1", "-5m", "yesterday", "2026-01-30", "1.5"} {
		if _, _, err := parseBound(s, now); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func printed(t *testing.T, format string, e entry.Entry) string {
	t.Helper()
	var out bytes.Buffer
	p := newPrinter(&out, format)
	if err := p.during(t.Context(), func(context.Context) error { return p.print(e) }); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPrint(t *testing.T) {
	at := time.Date(2026, 1, 31, 8, 0, 0, 5, time.UTC)
	text := entry.Entry{Log: "a.b", Seq: 7, Time: at, Data: []byte("é <&> \"q\"\n")}
	if got := printed(t, "raw", text); got != "é <&> \"q\"\n\n" {
		t.Errorf("raw: %q", got)
	}
	want := `{"log":"a.b","seq":7,"time":"2026-01-31T08:00:00.000000005Z","headers":{},"data":"é <&> \"q\"\n"}` + "\n"
	if got := printed(t, "jsonl", text); got != want {
		t.Errorf("jsonl: %s\nwant   %s", got, want)
	}
	binary := entry.Entry{Log: "a.b", Seq: 8, Time: at, Headers: map[string][]string{"K": {"v", "w"}},
		Data: []byte{0xff, 0, '\n'}}
	var line struct {
		Headers        map[string][]string
		Data, Encoding string
	}
	if err := json.Unmarshal([]byte(printed(t, "jsonl", binary)), &line); err != nil {
		t.Fatal(err)
	}
	if data, err := base64.StdEncoding.DecodeString(line.Data); err != nil || !bytes.Equal(data, binary.Data) ||
		line.Encoding != "base64" || len(line.Headers["K"]) != 2 {
		t.Errorf("binary: %+v, %v", line, err)
	}
	if got := printed(t, "raw", binary); got != "\xff\x00\n\n" {
		t.Errorf("raw binary: %q", got)
	}
}

// lineWriter hands each write on.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// TestPrintsWhileNothingComes: what a followed log brought is printed though the read goes on in silence.
func TestPrintsWhileNothingComes(t *testing.T) {
	out := make(lineWriter)
	p := newPrinter(out, "raw")
	more, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- p.during(t.Context(), func(context.Context) error {
			if err := p.print(entry.Entry{Data: []byte("one")}); err != nil {
				return err
			}
			<-more
			return p.print(entry.Entry{Data: []byte("two")})
		})
	}()
	if got := <-out; got != "one\n" {
		t.Errorf("got %q", got)
	}
	close(more)
	if got := <-out; got != "two\n" {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// closedPipe is an output whose reader has gone, like head's.
type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestPrintEndsWhenNobodyReads(t *testing.T) {
	p := newPrinter(closedPipe{}, "raw")
	n := 0
	err := p.during(t.Context(), func(context.Context) error {
		for ; n < 1_000_000; n++ {
			if err := p.print(entry.Entry{Data: []byte("line")}); err != nil {
				return err
			}
		}
		return nil
	})
	if !errors.Is(err, syscall.EPIPE) || n == 1_000_000 {
		t.Fatalf("%d entries printed, %v", n, err)
	}
}

func TestListing(t *testing.T) {
	at := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	both := wire.LogInfo{Log: "a.b", Extents: 2,
		Archived: wire.Part{Entries: 3, Bytes: 2048, First: 4, Last: 9, MinTime: at.UnixNano(), MaxTime: at.UnixNano() + 1},
		Buffered: wire.Part{Entries: 1, Bytes: 10, First: 12, Last: 12, MinTime: at.UnixNano() + 2,
			MaxTime: at.UnixNano() + 3}}
	s := summaryOf(both)
	if s.Entries != 4 || s.Bytes != 2058 || s.First != 4 || s.Last != 12 || !s.FirstTime.Equal(at) ||
		!s.LastTime.Equal(at.Add(3)) {
		t.Errorf("both: %+v", s)
	}
	if s := summaryOf(wire.LogInfo{Archived: both.Archived}); s.First != 4 || s.Last != 9 || !s.LastTime.Equal(at.Add(1)) {
		t.Errorf("archived: %+v", s)
	}
	if s := summaryOf(wire.LogInfo{Buffered: both.Buffered}); s.First != 12 || s.Last != 12 ||
		!s.FirstTime.Equal(at.Add(2)) {
		t.Errorf("buffered: %+v", s)
	}
	var out bytes.Buffer
	show, flush := lsTable(&out)
	if err := errors.Join(show(both), flush(), show(both), flush()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "LOGID ENTRIES BYTES EXTENTS ARCHIVED BUFFERED "+
		"FIRST LAST FIRST TIME LAST TIME" ||
		strings.Join(strings.Fields(lines[1]), " ") != "a.b 4 2.0 KiB 2 3 1 4 12 2026-01-31 08:00:00 2026-01-31 08:00:00" {
		t.Errorf("table:\n%s", out.String())
	}
	out.Reset()
	if err := printStat(&out, s); err != nil || !strings.Contains(out.String(), "4 to 12") ||
		!strings.Contains(out.String(), "in 2 extents") {
		t.Errorf("stat: %v\n%s", err, out.String())
	}
}

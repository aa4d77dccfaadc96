package reader

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"dormouse/internal/entry"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
)

// list returns log=archived+buffered/extents of what begins with prefix, and ends with an error if there is one.
func (s *system) list(prefix string) (got []string) {
	s.T.Helper()
	for l, err := range Logs(s.T.Context(), client.New(s.NC, s.JS), s.archive, prefix) {
		if err != nil {
			return append(got, err.Error())
		}
		got = append(got, summary(l))
	}
	return got
}

func summary(l wire.LogInfo) string {
	return fmt.Sprintf("%s=%d+%d/%d", l.Log, l.Archived.Entries, l.Buffered.Entries, l.Extents)
}

// TestLogs: what is archived in several segments, buffered, or both; with what was refused left out, before and after a
// merge. Log says the same of each.
func TestLogs(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	for _, log := range []string{"a.a", "a.b", "a.bb", "a.c", "b.a"} {
		s.Publish(log, "1", "2")
	}
	s.Archive("0/one.sst", 8, "a.a", "a.b", "a.c", "b.a")
	s.Publish("a.b", "3")
	s.Publish("a.a", "3")
	in, extents := s.Put("0/two.sst", 99, "a.a", "a.b")
	s.CommitPart(in, []string{"a.a"}, extents[1])
	s.Publish("a.b", "4")
	s.Publish("c.c", "1")
	all := []string{"a.a=2+1/1", "a.b=3+1/2", "a.bb=0+2/0", "a.c=2+0/1", "b.a=0+2/0", "c.c=0+1/0"}
	for prefix, want := range map[string][]string{
		"": all, "a": all[:4], "a.b": all[1:3], "a.bb": all[2:3], "b.": all[4:5], "d": nil, "a.a.": nil,
	} {
		if got := s.list(prefix); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	s.Merge("0/merged.sst", "0/one.sst")
	all[1] = "a.b=3+1/2"
	if got := s.list(""); !slices.Equal(got, all) {
		t.Errorf("after a merge: %q", got)
	}
	home := topology.Source{Stream: wire.DefaultSource, Prefix: wire.DefaultPrefix}
	for _, one := range append(all, "a.b.c", "a") {
		log, _, known := strings.Cut(one, "=")
		info, ok, err := Log(t.Context(), client.New(s.NC, s.JS), s.archive, home, log)
		if err != nil || ok != known || known && summary(info) != one {
			t.Errorf("%s: %+v, %v, %v", one, info, ok, err)
		}
	}
}

// TestLogThatIsNotTakenIn: what the stream has is waited for, and nothing else is.
func TestLogThatIsNotTakenIn(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	s.Mu.Behind = true
	seq := s.Publish("a.b", "1")
	home := topology.Source{Stream: wire.DefaultSource, Prefix: wire.DefaultPrefix}
	late := time.AfterFunc(300*time.Millisecond, func() {
		s.Mu.Lock()
		s.Mu.Behind = false
		s.Mu.Unlock()
		s.TakeIn(entry.Entry{Log: "a.b", Seq: seq, Time: time.Now(), Data: []byte("1")})
	})
	defer late.Stop()
	info, ok, err := Log(t.Context(), client.New(s.NC, s.JS), s.archive, home, "a.b")
	if err != nil || !ok || info.Buffered.Entries != 1 {
		t.Errorf("%+v, %v, %v", info, ok, err)
	}
	began := time.Now()
	if _, ok, err := Log(t.Context(), client.New(s.NC, s.JS), s.archive, home, "a.c"); ok || err != nil ||
		time.Since(began) > client.Patience/4 {
		t.Errorf("a log that there is not: %v, %v after %s", ok, err, time.Since(began))
	}
}

// TestLogsThatMove: what was buffered when it was asked for and is archived when that is read counts once.
func TestLogsThatMove(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	s.Publish("a.all", "1", "2")
	s.Publish("a.some", "1", "2")
	l := &lister{client: client.New(s.NC, s.JS), open: &readers{archive: s.archive}}
	buffered := make(map[string]wire.LogInfo)
	for _, log := range []string{"a.all", "a.some"} {
		info, ok, err := l.buffered(t.Context(), 0, log)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		buffered[log] = info
	}
	s.Archive("0/one.sst", 3, "a.all", "a.some")
	for log, want := range map[string]string{"a.all": "a.all=2+0/1", "a.some": "a.some=1+1/1"} {
		info, ok, err := l.archived(t.Context(), 0, log)
		if err == nil && ok {
			info, err = l.join(t.Context(), 0, info, buffered[log])
		}
		if err != nil || summary(info) != want {
			t.Errorf("%s: %s, %v", want, summary(info), err)
		}
	}
	if err := l.open.close(); err != nil {
		t.Error(err)
	}
}

// TestListOfAMissingSegment: one that a merge has replaced is looked for anew; one that is lost is told by name.
func TestListOfAMissingSegment(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	for i := range 4 {
		last := s.Publish(fmt.Sprint("a.", i), "1")
		s.Archive(fmt.Sprintf("0/%d.sst", i), last, fmt.Sprint("a.", i))
	}
	stale := s.Mu.Tree
	s.Merge("0/m.sst", "0/0.sst", "0/1.sst", "0/2.sst", "0/3.sst")
	now := s.Mu.Tree
	s.Mu.Tree = stale // as if the question had come before the merge
	back := time.AfterFunc(200*time.Millisecond, func() {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		s.Mu.Tree = now
	})
	defer back.Stop()
	if got := s.list(""); !slices.Equal(got, []string{"a.0=1+0/1", "a.1=1+0/1", "a.2=1+0/1", "a.3=1+0/1"}) {
		t.Errorf("over a merge: %q", got)
	}
	if err := s.Bucket.Delete(t.Context(), "0/m.sst"); err != nil {
		t.Fatal(err)
	}
	if got := s.list(""); len(got) != 1 || !strings.Contains(got[0], "0/m.sst") {
		t.Errorf("of a segment that is lost: %q", got)
	}
}

// TestReadOverMerges: a segment that is gone when it is opened is looked for anew, and nothing is lost or comes twice.
func TestReadOverMerges(t *testing.T) {
	s := newSystem(t)
	s.Claim(1)
	s.Own(1)
	var want []string
	for i := range 6 {
		last := s.Publish("a.b", fmt.Sprint(i))
		s.Archive(fmt.Sprintf("0/%d.sst", i), last, "a.b")
		want = append(want, fmt.Sprintf("%d=%d", i+1, i))
	}
	r := s.open("a.b")
	if got := s.read(Query{Log: "a.b"}); got != strings.Join(want, " ") {
		t.Errorf("before: %s", got)
	}
	s.Merge("0/m1.sst", "0/0.sst", "0/1.sst", "0/2.sst", "0/3.sst")
	if got := s.read(Query{Log: "a.b"}); got != strings.Join(want, " ") {
		t.Errorf("after one: %s", got)
	}
	if err := os.Remove(strings.TrimPrefix(s.Bucket.URL(), "file://") + "/0/5.sst"); err != nil {
		t.Fatal(err)
	}
	err := r.Read(t.Context(), Query{Log: "a.b"}, func(entry.Entry) error { return nil })
	if !errors.Is(err, bucket.ErrNotFound) || !strings.Contains(err.Error(), "0/5.sst") ||
		!strings.Contains(err.Error(), "dormouse verify") {
		t.Errorf("a segment that is lost: %v", err)
	}
}

// TestAfter compares it with what begins with prefixes.
func TestAfter(t *testing.T) {
	for prefix, want := range map[string]string{"": "", "a.": "a/", "\U0010ffff": "", "a\U0010ffff\U0010ffff": "b",
		"\ud7ff": "\ue000", "é": "ê"} {
		if got := After(prefix); got != want {
			t.Errorf("after %q: %q, want %q", prefix, got, want)
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	runes := []rune{'a', '.', 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, utf8.MaxRune}
	word := func(n int) (s string) {
		for range n {
			s += string(runes[r.IntN(len(runes))])
		}
		return s
	}
	for range 10_000 {
		prefix, other := word(1+r.IntN(3)), word(r.IntN(6))
		end := After(prefix)
		if begins := strings.HasPrefix(other, prefix); begins != (other >= prefix && (end == "" || other < end)) {
			t.Fatalf("%q begins with %q: %v, and lies before %q", other, prefix, begins, end)
		}
	}
}

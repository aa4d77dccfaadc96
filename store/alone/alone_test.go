package alone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"dormouse/internal/entry"
	"dormouse/store/client"
	"dormouse/store/reader"
	"dormouse/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// system is one whose bucket is read alone.
type system struct{ *storetest.System }

func newSystem(t *testing.T) *system {
	s := &system{storetest.New(t)}
	s.Claim(1)
	return s
}

// at returns the key of a segment that was named at a time.
func at(when time.Time) string {
	id := uuid.New()
	binary.BigEndian.PutUint64(id[:], uint64(when.UnixMilli())<<16|7<<12|0x123)
	return "0/" + id.String() + ".sst"
}

// checkpoint puts the tree as it is, or other bytes, as a checkpoint of now.
func (s *system) checkpoint(other ...byte) {
	s.T.Helper()
	data, err := s.Mu.Tree.Encode()
	if len(other) > 0 {
		data = other
	}
	if err == nil {
		name := strings.TrimSuffix(strings.TrimPrefix(at(time.Now()), "0/"), ".sst")
		err = s.Bucket.Put(s.T.Context(), "0/checkpoint/"+name+".tree", data)
	}
	if err != nil {
		s.T.Fatal(err)
	}
}

func (s *system) open() *Archive {
	s.T.Helper()
	a, err := Open(s.T.Context(), s.Bucket)
	if err != nil {
		s.T.Fatal(err)
	}
	return a
}

// read returns the sequences of a log.
func (s *system) read(q reader.Query) string {
	s.T.Helper()
	var got []string
	if err := s.open().Read(s.T.Context(), q, func(e entry.Entry) error {
		got = append(got, fmt.Sprintf("%d=%s", e.Seq, e.Data))
		return nil
	}); err != nil {
		return err.Error()
	}
	return strings.Join(got, " ")
}

func (s *system) list(prefix string) string {
	s.T.Helper()
	var got []string
	for l, err := range s.open().Logs(s.T.Context(), prefix) {
		if err != nil {
			return err.Error()
		}
		got = append(got, fmt.Sprintf("%s=%d:%d..%d", l.Log, l.Archived.Entries, l.Archived.First, l.Archived.Last))
	}
	return strings.Join(got, " ")
}

// must holds that the bucket alone has what was committed.
func (s *system) must(when, log string, want string) {
	s.T.Helper()
	if got := s.read(reader.Query{Log: log}); got != want {
		s.T.Errorf("%s: %s reads %s, want %s", when, log, got, want)
	}
}

// TestEveryStateOfABucket: without a checkpoint, with one and segments since, with merges of which the inputs are there
// still, or not any more, and with what was never committed: each committed entry comes once.
func TestEveryStateOfABucket(t *testing.T) {
	s := newSystem(t)
	if _, err := Open(t.Context(), s.Bucket); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty bucket: %v", err)
	}
	s.Publish("a.b", "1", "2")
	s.Publish("a.c", "3")
	one, two, three := at(time.Now()), at(time.Now()), at(time.Now())
	s.Archive(one, 3, "a.b", "a.c")
	s.must("without a checkpoint", "a.b", "1=1 2=2")
	s.checkpoint()
	s.must("with one", "a.b", "1=1 2=2")
	s.Publish("a.b", "4")
	s.Archive(two, 4, "a.b")
	s.must("with a segment since", "a.b", "1=1 2=2 4=4")
	s.Publish("a.b", "5")
	in, extents := s.Put(three, 9, "a.b") // a worker put it, and has not committed it
	s.must("with what is not committed", "a.b", "1=1 2=2 4=4 5=5")
	s.Commit(in, extents...)
	kept := make(map[string][]byte)
	for _, key := range []string{one, two} {
		data, err := os.ReadFile(s.file(key))
		if err != nil {
			t.Fatal(err)
		}
		kept[key] = data
	}
	s.Merge(at(time.Now()), one, two) // which deletes them
	s.must("merged since", "a.b", "1=1 2=2 4=4 5=5")
	for key, data := range kept {
		if err := s.Bucket.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	s.must("merged, and the inputs are there", "a.b", "1=1 2=2 4=4 5=5")
	if got := s.list(""); got != "a.b=4:1..5 a.c=1:3..3" {
		t.Errorf("listed %s", got)
	}
	s.checkpoint()
	s.must("with a checkpoint of that", "a.b", "1=1 2=2 4=4 5=5")
	if info, err := s.open().Log(t.Context(), "a.b"); err != nil || info.Archived.Entries != 4 {
		t.Errorf("%+v, %v", info, err)
	}
	for prefix, want := range map[string]string{"a.c": "a.c=1:3..3", "b": "", "a.bb": ""} {
		if got := s.list(prefix); got != want {
			t.Errorf("%q: %s", prefix, got)
		}
	}
	s.checkpoint('x')
	s.must("with a checkpoint that is damaged", "a.b", "1=1 2=2 4=4 5=5")
	r, err := s.open().Verify(t.Context(), "", func(err error) { t.Error(err) }, nil)
	if err != nil || r.Bad > 0 || r.Segments < 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func (s *system) file(key string) string {
	return filepath.Join(strings.TrimPrefix(s.Bucket.URL(), "file://"), key)
}

// TestOldOrphansAreNoPart: what was named long before a checkpoint, and is not in it, was never committed, or was
// merged.
func TestOldOrphansAreNoPart(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1")
	s.Publish("a.b", "2")
	s.Archive(at(time.Now()), 1, "a.b")
	s.Put(at(time.Now().Add(-2*margin)), 2, "a.b")
	s.must("without a checkpoint", "a.b", "1=1 2=2")
	s.checkpoint()
	s.must("with one", "a.b", "1=1")
}

// TestRefusedLogsAreNoPart of a segment that a checkpoint knows.
func TestRefusedLogsAreNoPart(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1")
	s.Publish("a.c", "2")
	in, extents := s.Put(at(time.Now()), 2, "a.b", "a.c")
	s.CommitPart(in, []string{"a.c"}, extents[0])
	s.checkpoint()
	s.must("refused", "a.c", client.ErrNoLog.Error())
	s.must("committed", "a.b", "1=1")
	if got := s.list(""); got != "a.b=1:1..1" {
		t.Errorf("listed %s", got)
	}
}

// TestQuery: bounds by sequence and time.
func TestQuery(t *testing.T) {
	s := newSystem(t)
	for i := range 6 {
		last := s.Publish("a.b", fmt.Sprint(i))
		s.Archive(at(time.Now()), last, "a.b")
	}
	third := s.Message(3).Time
	for _, tc := range []struct {
		q    reader.Query
		want string
	}{
		{reader.Query{From: 5}, "5=4 6=5"}, {reader.Query{To: 2}, "1=0 2=1"}, {reader.Query{From: 2, To: 2}, "2=1"},
		{reader.Query{FromTime: third, ToTime: third}, "3=2"}, {reader.Query{From: 7}, ""},
	} {
		tc.q.Log = "a.b"
		if got := s.read(tc.q); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.q, got, tc.want)
		}
	}
	enough := errors.New("enough")
	err := s.open().Read(t.Context(), reader.Query{Log: "a.b"}, func(entry.Entry) error { return enough })
	if err != enough {
		t.Errorf("the caller's error comes back as %v", err)
	}
}

// TestVerifyNamesDamage, of what a checkpoint knows and of what it does not.
func TestVerifyNamesDamage(t *testing.T) {
	s := newSystem(t)
	s.Publish("a.b", "1")
	known, fresh := at(time.Now()), at(time.Now())
	s.Archive(known, 1, "a.b")
	s.checkpoint()
	s.Publish("a.b", "2")
	s.Archive(fresh, 2, "a.b")
	for _, key := range []string{known, fresh} {
		data, err := os.ReadFile(s.file(key))
		if err != nil {
			t.Fatal(err)
		}
		data[8] ^= 1
		if err := os.WriteFile(s.file(key), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	r, err := s.open().Verify(t.Context(), "", func(err error) { said = append(said, err.Error()) }, nil)
	if err != nil || r.Bad != 2 || !strings.Contains(strings.Join(said, " "), known) ||
		!strings.Contains(strings.Join(said, " "), fresh) {
		t.Errorf("%+v, %v, %q", r, err, said)
	}
	// Of what is not in the checkpoint nobody knows which logs it has.
	if r, err := s.open().Verify(t.Context(), "b.c", func(error) {}, nil); err != nil || r.Bad != 1 {
		t.Errorf("another log: %+v, %v", r, err)
	}
}

// TestOtherObjects: what is no object of an archive is passed over.
func TestOtherObjects(t *testing.T) {
	s := newSystem(t)
	for _, key := range []string{"dormouse.json", "x/y.sst", "00/a.sst", "0/a.txt", "0/b/c.sst", "readme"} {
		if err := s.Bucket.Put(t.Context(), key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), s.Bucket); !errors.Is(err, ErrEmpty) {
		t.Errorf("opened with %v", err)
	}
	s.Publish("a.b", "1")
	s.Archive(at(time.Now()), 1, "a.b")
	s.must("beside them", "a.b", "1=1")
}

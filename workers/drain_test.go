package workers

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"dormouse/internal/entry"
	"dormouse/internal/wire"
	"dormouse/store/segment"
)

// reprOf is a batch with the records of a log.
func reprOf(log string, records ...record) []byte {
	var b batchRepr
	for _, r := range records {
		b.set(entry.AppendKey(nil, log, r.seq), r.value())
	}
	return b.bytes()
}

func TestSinkRefuses(t *testing.T) {
	one, two := record{1, []byte("one")}, record{2, []byte("two")}
	good := reprOf("a.b", one, two)
	miscounted := bytes.Clone(good)
	miscounted[8]++
	deletion := bytes.Clone(good)
	deletion[12] = 0
	var garbled batchRepr
	garbled.set(entry.AppendKey(nil, "a.b", 1), []byte{99})
	var keyless batchRepr
	keyless.set([]byte("a.b"), one.value())
	part := func(offset, total int, data string) *wire.Piece {
		return &wire.Piece{Key: entry.AppendKey(nil, "a.b", 9), Offset: offset, Total: total, Bytes: []byte(data)}
	}
	other := part(3, 9, "xyz")
	other.Key = entry.AppendKey(nil, "a.b", 8)
	for name, tc := range map[string]struct {
		replies []wire.DrainReply
		want    string
	}{
		"a log not asked for":     {[]wire.DrainReply{{Data: reprOf("a.z", one), Done: true}}, "not asked for"},
		"entries out of order":    {[]wire.DrainReply{{Data: reprOf("a.b", two, one), Done: true}}, "out of order"},
		"an entry twice":          {[]wire.DrainReply{{Data: good, After: 2}, {Data: good, Done: true}}, "out of order"},
		"an entry twice in a row": {[]wire.DrainReply{{Data: reprOf("a.b", two, two), Done: true}}, "out of order"},
		"sequence 0":              {[]wire.DrainReply{{Data: reprOf("a.b", record{0, nil}), Done: true}}, "sequence 0"},
		"a short batch":           {[]wire.DrainReply{{Data: good[:5], Done: true}}, "batch of 5 bytes"},
		"a batch cut in a value": {[]wire.DrainReply{{Data: good[:len(good)-1], Done: true}},
			"ends in the value of record 1"},
		"a batch cut in a key":     {[]wire.DrainReply{{Data: good[:14], Done: true}}, "ends in the key of record 0"},
		"a batch cut at a kind":    {[]wire.DrainReply{{Data: good[:13], Done: true}}, "ends in the key of record 0"},
		"a batch without its end":  {[]wire.DrainReply{{Data: miscounted, Done: true}}, "batch of 3 entries holds 2"},
		"a record that is no Set":  {[]wire.DrainReply{{Data: deletion, Done: true}}, "kind"},
		"a value that is no entry": {[]wire.DrainReply{{Data: garbled.bytes(), Done: true}}, "version"},
		"a key that is no entry's": {[]wire.DrainReply{{Data: keyless.bytes(), Done: true}}, "key"},
		"no progress":              {[]wire.DrainReply{{}}, "not beyond"},
		"a step back":              {[]wire.DrainReply{{After: 5}, {After: 4, Offset: 7}}, "not beyond"},
		"a log beyond the last":    {[]wire.DrainReply{{Skip: 2}}, "go on after 2 of 2 logs"},
		"a negative log":           {[]wire.DrainReply{{Skip: -1}}, "go on after -1"},
		"a negative offset":        {[]wire.DrainReply{{After: 1, Offset: -1}}, "byte -1"},
		"an endless entry": {[]wire.DrainReply{{Piece: part(0, maxEntry+1, "x"), Offset: 1}},
			"an entry of 67108865 bytes"},
		"an empty entry in parts": {[]wire.DrainReply{{Piece: part(0, 0, ""), Offset: 1}}, "an entry of 0 bytes"},
		"a part from the middle":  {[]wire.DrainReply{{Piece: part(3, 9, "xyz"), Offset: 6}}, "does not follow"},
		"an empty part":           {[]wire.DrainReply{{Piece: part(0, 9, ""), Offset: 6}}, "does not follow"},
		"a part that is too long": {[]wire.DrainReply{{Piece: part(0, 2, "xyz"), Offset: 3}}, "does not follow"},
		"a total that changes": {[]wire.DrainReply{{Piece: part(0, 9, "xyz"), Offset: 3},
			{Piece: part(3, 8, "xyz"), Offset: 6}}, "does not follow"},
		"an entry that has no end": {[]wire.DrainReply{{Piece: part(0, 9, "xyz"), Offset: 3}, {Done: true}},
			"archived while"},
		"entries amid another one": {[]wire.DrainReply{{Piece: part(0, 9, "xyz"), Offset: 3}, {Data: good, After: 9}},
			"archived while"},
		"parts of two entries": {[]wire.DrainReply{{Piece: part(0, 9, "xyz"), Offset: 3}, {Piece: other, Offset: 6}},
			"archived while"},
		"an entry amid another one": {[]wire.DrainReply{{Piece: part(0, 9, "xyz"), Offset: 3}, {Data: good, Done: true}},
			"archived while"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sink{logs: []string{"a.b", "a.c"}, add: func([]byte, []byte) error { return nil }}
			req := wire.DrainRequest{Logs: s.logs}
			var err error
			for i, reply := range tc.replies {
				if err != nil {
					t.Fatalf("reply %d: %v", i-1, err)
				}
				err = s.take(reply, &req)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error that says %q", err, tc.want)
			}
			if !errors.Is(err, errImpossible) && !errors.Is(err, errMoved) {
				t.Fatalf("%v is of no known kind", err)
			}
		})
	}
}

// FuzzDrainReply gives a sink two arbitrary replies: they end in a known error, or in entries that a segment takes.
func FuzzDrainReply(f *testing.F) {
	one, two := record{1, []byte("one")}, noise(2, 100)
	whole := two.value()
	key := entry.AppendKey(nil, "a.b", 2)
	f.Add(encoded(wire.DrainReply{Data: reprOf("a.b", one), After: 1}),
		encoded(wire.DrainReply{Data: reprOf("a.b", two), Skip: 2, Done: true}))
	f.Add(encoded(wire.DrainReply{Piece: &wire.Piece{Key: key, Total: len(whole), Bytes: whole[:50]}, After: 1,
		Offset: 50}), encoded(wire.DrainReply{Piece: &wire.Piece{Key: key, Total: len(whole), Offset: 50, Bytes: whole[50:]},
		After: 2}))
	f.Add(encoded(wire.DrainReply{Skip: 1}), encoded(wire.DrainReply{Data: reprOf("a.c", one, two), Done: true}))
	f.Add([]byte{}, []byte("?"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		writer, err := segment.NewWriter(segment.Options{Compression: "none"})
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		s := &sink{logs: []string{"a.b", "a.c"}, add: func(key, value []byte) error {
			if err := writer.Add(key, value); err != nil {
				t.Fatalf("passed on %q: %v", key, err)
			}
			return nil
		}}
		req := wire.DrainRequest{Logs: s.logs, MaxBytes: 1 << 20}
		for _, data := range [][]byte{first, second} {
			var reply wire.DrainReply
			if wire.Decode(data, &reply) != nil {
				return
			}
			if err := s.take(reply, &req); err != nil {
				if !errors.Is(err, errImpossible) && !errors.Is(err, errMoved) {
					t.Fatalf("%v is of no known kind", err)
				}
				return
			}
			if err := req.Validate(); err != nil {
				t.Fatalf("the next request is one the owner refuses: %v", err)
			}
			if reply.Done {
				return
			}
		}
	})
}

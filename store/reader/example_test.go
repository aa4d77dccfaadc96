package reader_test

import (
	"context"
	"fmt"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/store/reader"
)

// archive has what was archived of one log.
type archive []entry.Entry

func (a archive) Open(context.Context, extent.Segment) (reader.Segment, error) { return a, nil }
func (a archive) Close() error                                                 { return nil }

func (a archive) Scan(_ context.Context, _ string, first, last uint64, fn func(entry.Entry) error) error {
	for _, e := range a {
		if first <= e.Seq && e.Seq <= last {
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// owner knows that a segment can have entries of the log up to 4, and has taken in the stream up to 5.
type owner struct{}

func (owner) Held(_ context.Context, log string, at reader.Place) (reader.Held, error) {
	held := reader.Held{Applied: 5}
	if at.Since < 3 {
		held.Pieces = []extent.Piece{{Newest: 3, Segment: extent.Summary{First: log, Last: log, MinSeq: 1, MaxSeq: 4}}}
	}
	return held, nil
}

func (owner) Complete(context.Context, string, reader.Place, uint64, []uint64) (bool, uint64, error) {
	return false, 5, nil
}

// stream still holds the entries that are not archived.
type stream []entry.Entry

func (s stream) Kept(context.Context, uint64, uint64) (bool, error) { return true, nil }
func (s stream) End(context.Context) (uint64, error)                { return s[len(s)-1].Seq, nil }

func (s stream) Fetch(_ context.Context, _ string, after uint64, _ bool) (found []entry.Entry, err error) {
	for _, e := range s {
		if e.Seq > after {
			found = append(found, e)
		}
	}
	return found, nil
}

// A read joins the archive and the stream: each entry once, in order, wherever it is by now.
func Example() {
	r := reader.Reader{
		Owner:    owner{},
		Segments: archive{{Seq: 1, Data: []byte("one")}, {Seq: 4, Data: []byte("two")}},
		Tail:     stream{{Seq: 4, Data: []byte("two")}, {Seq: 6, Data: []byte("three")}},
	}
	err := r.Read(context.Background(), reader.Query{Log: "acme.web"}, func(e entry.Entry) error {
		fmt.Printf("%d %s\n", e.Seq, e.Data)
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output:
	// 1 one
	// 4 two
	// 6 three
}

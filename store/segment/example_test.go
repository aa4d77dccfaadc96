package segment_test

import (
	"context"
	"fmt"
	"time"

	"dormouse/internal/entry"
	"dormouse/store/segment"
)

// A segment holds entries of many logs, ascending by log and sequence. Its table of contents says what it has of which,
// so that of one log only its part of the object is read.
func Example() {
	w, err := segment.NewWriter(segment.Options{})
	if err != nil {
		panic(err)
	}
	defer w.Close()
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, e := range []entry.Entry{
		{Log: "acme.db", Seq: 4, Data: []byte("started")}, {Log: "acme.web", Seq: 2, Data: []byte("GET /")},
		{Log: "acme.web", Seq: 7, Data: []byte("GET /a")},
	} {
		if err := w.Add(entry.AppendKey(nil, e.Log, e.Seq), entry.AppendValue(nil, at, e.Headers, e.Data)); err != nil {
			panic(err)
		}
	}
	data, extents, err := w.Finish()
	if err != nil {
		panic(err)
	}
	for _, e := range extents {
		fmt.Printf("%s: %d entries from %d to %d\n", e.Log, e.Count, e.First, e.Last)
	}

	ctx := context.Background()
	r, err := segment.Open(ctx, segment.Bytes("example", data)) // in Dormouse, an object of the bucket
	if err != nil {
		panic(err)
	}
	defer r.Close()
	err = r.Scan(ctx, "acme.web", 3, 9, func(e entry.Entry) error {
		fmt.Printf("%d %s\n", e.Seq, e.Data)
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output:
	// acme.db: 1 entries from 4 to 4
	// acme.web: 2 entries from 2 to 7
	// 7 GET /a
}

package reader

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"dormouse/internal/entry"
	"dormouse/store/client"
	"dormouse/store/storetest"
)

// system is one with an owner that answers, and readers of it.
type system struct{ *storetest.System }

func newSystem(t *testing.T) *system {
	t.Helper()
	return &system{storetest.New(t)}
}

// archive opens the bucket, whatever it is called.
func (s *system) archive(context.Context, string) (*Bucket, error) {
	return NewBucket(s.JS, s.Bucket), nil
}

// open locates a log and makes its reader.
func (s *system) open(log string) *Reader {
	s.T.Helper()
	c := client.New(s.NC, s.JS)
	at, err := Locate(s.T.Context(), c, s.archive, log)
	if err != nil {
		s.T.Fatal(err)
	}
	r, closeReader, err := Open(s.T.Context(), c, at, NewBucket(s.JS, s.Bucket))
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(closeReader)
	return r
}

// read returns sequence=payload of what a query brings.
func (s *system) read(q Query) string {
	s.T.Helper()
	var got []string
	err := s.open(q.Log).Read(s.T.Context(), q, func(e entry.Entry) error {
		got = append(got, fmt.Sprintf("%d=%s", e.Seq, e.Data))
		return nil
	})
	if err != nil {
		s.T.Fatal(err)
	}
	return strings.Join(got, " ")
}

package wire

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"dormouse/internal/extent"
)

func TestSubjects(t *testing.T) {
	subject := OwnerSubject(3, 17, OpDrain)
	if subject != "dormouse.owner.3.17.drain" || OperationOf(subject) != OpDrain ||
		OwnerSubjects(3, 17) != "dormouse.owner.3.17.*" {
		t.Fatalf("owner subject is %q", subject)
	}
}

func TestStatusKeepsItsMeaning(t *testing.T) {
	for _, sentinel := range []error{ErrBadRequest, ErrNotOwner, ErrBusy, ErrFailed} {
		err := StatusOf(fmt.Errorf("%w: because", sentinel)).Err()
		if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), "because") {
			t.Errorf("%v came back as %v", sentinel, err)
		}
	}
	if StatusOf(nil).Err() != nil || !errors.Is(StatusOf(errors.New("disk")).Err(), ErrFailed) {
		t.Error("nil must stay nil and an unknown error must become ErrFailed")
	}
}

func TestTimesKeepTheirNanoseconds(t *testing.T) {
	want := time.Unix(1700000000, 123456789).UTC()
	data, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	var got time.Time
	if err := Decode(data, &got); err != nil || !got.Equal(want) {
		t.Fatalf("%v came back as %v, %v", want, got, err)
	}
}

func TestValidate(t *testing.T) {
	e := extent.Extent{Log: "a.b", First: 1, Last: 2, Count: 2}
	one := extent.Summarize(extent.Segment{Key: "k", Size: 1}, []extent.Extent{e})
	many := make([]string, MaxItemLogs+1)
	for i := range many {
		many[i] = fmt.Sprintf("a.%05d", i)
	}
	for name, tc := range map[string]struct {
		message interface{ Validate() error }
		want    string
	}{
		"item":              {WorkItem{Logs: []string{"a.b", "a.c"}}, ""},
		"empty item":        {WorkItem{}, "0 logs"},
		"item too long":     {WorkItem{Logs: many}, "257 logs"},
		"item out of order": {WorkItem{Logs: []string{"a.c", "a.b"}}, "out of order"},
		"item twice":        {WorkItem{Logs: []string{"a.b", "a.b"}}, "out of order"},
		"item with no log":  {WorkItem{Logs: []string{"a"}}, "no log token"},
		"drain":             {DrainRequest{Logs: many, MaxBytes: 1}, ""},
		"drain of nothing":  {DrainRequest{Logs: many}, "byte limit 0"},
		"drain backwards":   {DrainRequest{Logs: many, MaxBytes: 1, Offset: -1}, "offset -1"},
		"commit":            {CommitRequest{Segment: extent.Segment{Key: "k"}, Extents: []extent.Extent{e}}, ""},
		"commit of nothing": {CommitRequest{Segment: extent.Segment{Key: "k"}}, "0 extents"},
		"commit nowhere":    {CommitRequest{Extents: []extent.Extent{e}}, `segment ""`},
		"commit twice": {CommitRequest{Segment: extent.Segment{Key: "k"}, Extents: []extent.Extent{e, e}},
			"out of order"},
		"commit no extent": {CommitRequest{Segment: extent.Segment{Key: "k"}, Extents: []extent.Extent{{Log: "a.b"}}},
			"runs from 0"},
		"too many entries": {CommitRequest{Segment: extent.Segment{Key: "k"},
			Extents: []extent.Extent{{Log: "a.b", First: 1, Last: 2, Count: 3}}}, "3 entries"},
		"merge":               {MergeItem{Runs: [][]extent.Summary{{one}, {one}}}, ""},
		"merge of one":        {MergeItem{Runs: [][]extent.Summary{{one}}}, "a merge of 1"},
		"merge of many":       {MergeItem{Runs: [][]extent.Summary{slices.Repeat([]extent.Summary{one}, 257)}}, "257"},
		"merge of no segment": {MergeItem{Runs: [][]extent.Summary{{one}, {{}}}}, "0 bytes"},
		"replace":             {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: []extent.Summary{one}}, ""},
		"replace by nothing":  {ReplaceRequest{Inputs: []string{"a", "b"}}, ""},
		"replace one":         {ReplaceRequest{Inputs: []string{"a"}}, "at least 2"},
		"replace by no log": {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: []extent.Summary{
			extent.Summarize(one.Object, []extent.Extent{{Log: "a", First: 1, Last: 1, Count: 1}})}}, "no log token"},
		"segments":            {SegmentsRequest{To: strings.Repeat("a", 257)}, ""},
		"segments backwards":  {SegmentsRequest{Offset: -1}, "offset -1"},
		"segments beyond all": {SegmentsRequest{From: strings.Repeat("a", 258)}, "258"},
		"list":                {ListRequest{Prefix: strings.Repeat("a", 300)}, "300"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.message.Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Fatalf("got %v, want an error that says %q", err, tc.want)
			}
		})
	}
}

// FuzzDecode feeds every message type the same bytes: none may panic, and what decodes must encode and decode to
// itself.
func FuzzDecode(f *testing.F) {
	for _, m := range []any{
		WorkItem{Shard: 1, Epoch: 2, Logs: []string{"a.b"}},
		DrainRequest{Logs: []string{"a.b"}, After: 3, MaxBytes: 10},
		DrainReply{Data: []byte("x"), Skip: 1, Piece: &Piece{Key: []byte("k"), Total: 9}},
		CommitRequest{Segment: extent.Segment{Key: "k"}, Extents: []extent.Extent{{Log: "a.b", First: 1, Last: 1, Count: 1}}},
		CommitReply{Status: Status{Code: Busy, Message: "m"}, Refused: []Refusal{{Log: "a.b"}}},
		SegmentsReply{Pieces: []extent.Piece{{}}, Archive: "file:///x"},
		SegmentsRequest{From: "a.b", Offset: 7},
		MergeItem{Runs: [][]extent.Summary{{{}}}},
		ReplaceRequest{Inputs: []string{"a"}, Outputs: []extent.Summary{{}}},
		HeldReply{Pieces: []extent.Piece{{Level: 3}}},
		ListRequest{Prefix: "a.", After: "a.b", Limit: 2},
		ListReply{Logs: []LogInfo{{Log: "a.b", Archived: Part{Entries: 1}}}},
		Process{ID: "n", Shards: []ShardStatus{{Shard: 1, State: ShardOwned}}},
	} {
		data, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []any{&WorkItem{}, &DrainRequest{}, &DrainReply{}, &CommitRequest{}, &CommitReply{},
			&SegmentsRequest{}, &SegmentsReply{}, &MergeItem{}, &ReplaceRequest{}, &ReplaceReply{}, &HeldRequest{},
			&HeldReply{}, &ListRequest{}, &ListReply{},
			&Process{}} {
			if err := Decode(data, m); err != nil {
				if !errors.Is(err, ErrBadRequest) {
					t.Fatalf("%T: error %v does not wrap ErrBadRequest", m, err)
				}
				continue
			}
			if v, ok := m.(interface{ Validate() error }); ok {
				_ = v.Validate()
			}
			encoded, err := Encode(m)
			if err != nil {
				t.Fatalf("%T: %v", m, err)
			}
			again := reflect.New(reflect.TypeOf(m).Elem()).Interface()
			if err := Decode(encoded, again); err != nil {
				t.Fatalf("%T does not decode again: %v", m, err)
			}
		}
	})
}

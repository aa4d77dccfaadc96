package wire

import (
	"errors"
	"fmt"
	"math"
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
	for got, want := range map[string]string{SyncSubject(3): "dormouse.sync.3", MergeSubject(3): "dormouse.merge.3",
		ManifestSubject(3): "dormouse.manifest.3", RejectedSubject(3): "dormouse.rejected.3"} {
		if got != want {
			t.Errorf("subject is %q, want %q", got, want)
		}
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
		"merge of most":       {MergeItem{Runs: [][]extent.Summary{{one}, slices.Repeat([]extent.Summary{one}, 255)}}, ""},
		"merge of one run":    {MergeItem{Runs: [][]extent.Summary{{one, one}}}, ""},
		"merge of nothing":    {MergeItem{Runs: [][]extent.Summary{{}, {}}}, "a merge of 0"},
		"merge of no segment": {MergeItem{Runs: [][]extent.Summary{{one}, {{}}}}, "0 bytes"},
		"replace":             {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: []extent.Summary{one}}, ""},
		"replace by nothing":  {ReplaceRequest{Inputs: []string{"a", "b"}}, ""},
		"replace by most": {ReplaceRequest{Inputs: slices.Repeat([]string{"a"}, 256),
			Outputs: slices.Repeat([]extent.Summary{one}, 256)}, ""},
		"replace many": {ReplaceRequest{Inputs: slices.Repeat([]string{"a"}, 257)}, "257"},
		"replace by many": {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: slices.Repeat([]extent.Summary{one}, 257)},
			"257"},
		"replace by what cannot be": {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: []extent.Summary{one, {}}},
			"0 bytes"},
		"replace one": {ReplaceRequest{Inputs: []string{"a"}}, "at least 2"},
		"replace by no log": {ReplaceRequest{Inputs: []string{"a", "b"}, Outputs: []extent.Summary{
			extent.Summarize(one.Object, []extent.Extent{{Log: "a", First: 1, Last: 1, Count: 1}})}}, "no log token"},
		"segments":            {SegmentsRequest{To: strings.Repeat("a", 257)}, ""},
		"segments backwards":  {SegmentsRequest{Offset: -1}, "offset -1"},
		"segments of all":     {SegmentsRequest{}, ""},
		"segments to beyond":  {SegmentsRequest{To: strings.Repeat("a", 258)}, "258"},
		"segments beyond all": {SegmentsRequest{From: strings.Repeat("a", 258)}, "258"},
		"held":                {HeldRequest{Log: "a.b", After: 3, Since: 9, UpTo: 4, Seqs: []uint64{4}}, ""},
		"held of no log":      {HeldRequest{Log: "a"}, "no log token"},
		"held backwards":      {HeldRequest{Log: "a.b", Offset: -1}, "offset -1"},
		"held of less":        {HeldRequest{Log: "a.b", MaxBytes: -1}, "byte limit -1"},
		"held after all":      {HeldRequest{Log: "a.b", After: math.MaxUint64}, "no sequence above"},
		"held up to before":   {HeldRequest{Log: "a.b", After: 3, UpTo: 3}, "above 3 up to 3"},
		"held of many":        {HeldRequest{Log: "a.b", Seqs: make([]uint64, MaxHeld+1)}, "4097 entries"},
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

// TestInputs: a request for a merge names all of its segments, from the oldest to the newest.
func TestInputs(t *testing.T) {
	of := func(keys ...string) (run []extent.Summary) {
		for _, key := range keys {
			run = append(run, extent.Summary{Object: extent.Segment{Key: key}})
		}
		return run
	}
	item := MergeItem{Runs: [][]extent.Summary{of("c", "a"), of("d"), of("b")}}
	if got := item.Inputs(); !slices.Equal(got, []string{"c", "a", "d", "b"}) {
		t.Errorf("got %v", got)
	}
}

// TestJoin: a part and one behind it add up, whichever of them is none.
func TestJoin(t *testing.T) {
	a := Part{Entries: 2, Bytes: 20, First: 3, Last: 5, MinTime: 50, MaxTime: 70}
	b := Part{Entries: 1, Bytes: 7, First: 8, Last: 8, MinTime: 40, MaxTime: 40}
	want := Part{Entries: 3, Bytes: 27, First: 3, Last: 8, MinTime: 40, MaxTime: 70}
	if a.Join(b) != want || a.Join(Part{}) != a || (Part{}).Join(b) != b {
		t.Errorf("%+v, %+v, %+v", a.Join(b), a.Join(Part{}), Part{}.Join(b))
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
		ReplaceReply{Status{Code: BadRequest, Message: "m"}},
		HeldRequest{Log: "a.b", After: 3, Since: 9, UpTo: 5, Seqs: []uint64{4, 5}},
		HeldReply{Pieces: []extent.Piece{{Level: 3}}, Entries: []HeldEntry{{Seq: 4, Value: []byte("x"), Total: 9}}},
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
			&HeldReply{}, &ListRequest{}, &ListReply{}, &Process{}} {
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

package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"dormouse/internal/golden"
)

// TestGoldenMessages: processes of neighbouring versions understand each other.
func TestGoldenMessages(t *testing.T) {
	for _, message := range []any{
		&WorkItem{}, &DrainRequest{}, &DrainReply{}, &CommitRequest{}, &CommitReply{}, &HeldRequest{}, &HeldReply{},
		&SegmentsRequest{}, &SegmentsReply{}, &MergeItem{}, &ReplaceRequest{}, &ReplaceReply{}, &ListRequest{},
		&ListReply{}, &Status{},
	} {
		name := reflect.TypeOf(message).Elem().Name()
		t.Run(name, func(t *testing.T) {
			golden.Fill(message)
			today, err := Encode(reflect.ValueOf(message).Elem().Interface())
			if err != nil {
				t.Fatal(err)
			}
			read := reflect.New(reflect.TypeOf(message).Elem()).Interface()
			if err := Decode(golden.Bytes(t, name, today), read); err != nil || !reflect.DeepEqual(read, message) {
				t.Errorf("read as %+v, %v, want %+v", read, err, message)
			}
		})
	}
}

// TestGoldenJSON: keys of the lease bucket and answers to `dormouse status` are JSON, which people read too.
func TestGoldenJSON(t *testing.T) {
	for _, message := range []any{&Lease{}, &Process{}} {
		name := reflect.TypeOf(message).Elem().Name()
		t.Run(name, func(t *testing.T) {
			golden.Fill(message)
			today, err := json.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			read := reflect.New(reflect.TypeOf(message).Elem()).Interface()
			if err := json.Unmarshal(golden.Bytes(t, name, today), read); err != nil || !reflect.DeepEqual(read, message) {
				t.Errorf("read as %+v, %v, want %+v", read, err, message)
			}
		})
	}
}

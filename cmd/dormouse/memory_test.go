package main

import "testing"

func TestRoomOfTheCollector(t *testing.T) {
	const mib = 1 << 20
	none, half := sharedRoom.part(0, 8), sharedRoom.part(4, 8)
	for _, tc := range []struct {
		name        string
		room        room
		live        uint64 // MiB
		least, most uint64 // MiB of heap at the next collection
	}{
		{"nothing", embeddedRoom, 0, 190, 193},
		{"little", embeddedRoom, 10, 190, 192},
		{"half", embeddedRoom, 100, 190, 192},
		{"near easy", embeddedRoom, 160, 160 + 46, 160 + 48},
		{"much", embeddedRoom, 400, 2*400 - 128 - 5, 2*400 - 128},
		{"very much", embeddedRoom, 8000, 15000, 16000},
		{"little, all shards", sharedRoom.part(8, 8), 10, 127, 128},
		{"little, half of the shards", half, 10, 51, 52},
		{"much for half of the shards", half, 60, 60 + 11, 60 + 12},
		{"little, no share yet", none, 10, 47, 48},
		{"much, no share yet", none, 60, 60 + 11, 60 + 12},
		{"very much, half of the shards", half, 400, 2*400 - 128 - 5, 2*400 - 128},
	} {
		t.Run(tc.name, func(t *testing.T) {
			percent := tc.room.gcPercent(tc.live * mib)
			next := max(tc.live, 1) * uint64(100+percent) / 100
			if next < tc.least || next > tc.most {
				t.Errorf("GOGC %d: collects at %d MiB, want %d to %d", percent, next, tc.least, tc.most)
			}
		})
	}
}

package main

import "testing"

func TestRoomOfTheCollector(t *testing.T) {
	const mib = 1 << 20
	shared := sharedRoom
	shared.easy = leastEasy
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
		{"little, of a share", shared, 10, 47, 48},
		{"more than its share's", shared, 60, 60 + 23, 60 + 24},
		{"much, of a share", shared, 400, 2*400 - 128 - 5, 2*400 - 128},
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

package main

import (
	"fmt"
	"testing"
)

func TestHeadroomOfTheCollector(t *testing.T) {
	const mib = 1 << 20
	for _, tc := range []struct{ live, easy, atLeast, atMost uint64 }{ // heap at the next collection, MiB
		{0, easyHeap / mib, easyHeap/mib - 2, easyHeap/mib + 1},
		{10, easyHeap / mib, easyHeap/mib - 2, easyHeap / mib},
		{100, easyHeap / mib, easyHeap/mib - 2, easyHeap / mib},
		{10, 96, 94, 96},
		{60, leastEasyHeap / mib, 60 + leastHeadroom/mib - 2, 60 + leastHeadroom/mib},
		{160, easyHeap / mib, 160 + leastHeadroom/mib - 2, 160 + leastHeadroom/mib},
		{400, easyHeap / mib, 2*400 - costlyHeap/mib - 5, 2*400 - costlyHeap/mib},
		{8000, easyHeap / mib, 15000, 16000},
	} {
		t.Run(fmt.Sprint(tc.live, " MiB"), func(t *testing.T) {
			percent := gcPercent(tc.live*mib, tc.easy*mib)
			next := max(tc.live, 1) * uint64(100+percent) / 100
			if next < tc.atLeast || next > tc.atMost {
				t.Errorf("GOGC %d: collects at %d MiB, want %d to %d", percent, next, tc.atLeast, tc.atMost)
			}
		})
	}
}

package shard

import (
	"errors"
	"testing"
	"time"

	"dormouse/internal/extent"
	"dormouse/internal/streamreader"
)

// TestWhatIsArchived: an entry is archived when an extent of its log has its sequence and can have its time. One at or
// below the log's last archived sequence that is not, was published under a sequence that had been used.
func TestWhatIsArchived(t *testing.T) {
	o := claimed(t)
	batch := o.site.DB.NewBatch()
	for _, e := range []extent.Extent{
		{Log: "t.a", First: 2, Last: 4, Count: 2, MinTime: 20, MaxTime: 40},
		{Log: "t.a", First: 8, Last: 9, Count: 2, MinTime: 80, MaxTime: 90},
	} {
		if err := o.ledger.disk.recent.Put(batch, e); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(batch.Commit(noSync), batch.Close()); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		log  string
		seq  uint64
		at   int64
		want archiveState
	}{
		{"t.a", 1, 30, archivedAnother},
		{"t.a", 2, 20, archivedHere}, {"t.a", 3, 30, archivedHere}, {"t.a", 4, 40, archivedHere},
		{"t.a", 3, 19, archivedAnother}, {"t.a", 3, 41, archivedAnother},
		{"t.a", 5, 30, archivedAnother}, {"t.a", 7, 85, archivedAnother},
		{"t.a", 9, 90, archivedHere}, {"t.a", 9, 91, archivedAnother},
		{"t.a", 10, 90, archivedNot}, {"t.a", 10, 1, archivedNot}, {"t.b", 3, 30, archivedNot},
	} {
		if got, err := o.ledger.disk.whatIsArchived(tc.log, tc.seq, time.Unix(0, tc.at)); err != nil || got != tc.want {
			t.Errorf("%s at %d, time %d: %v, %v, want %v", tc.log, tc.seq, tc.at, got, err, tc.want)
		}
	}
}

// TestWhatIsTakenInAlready comes again when a consumer begins below it, and is not taken in twice.
func TestWhatIsTakenInAlready(t *testing.T) {
	o := claimed(t)
	fill(t, o, []string{"t.a"}, 3)
	in := o.intake.newBatch()
	for seq := uint64(2); seq <= 4; seq++ {
		if err := in.take(streamreader.Message{Subject: "logs.t.a", Sequence: seq, Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if in.came != 3 || in.messages != 1 || len(in.gaps) > 0 {
		t.Errorf("of %d messages %d are taken, with gaps %v", in.came, in.messages, in.gaps)
	}
	if err := o.intake.apply(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if pending, _ := o.sched.Pending("t.a"); pending.Count != 4 || pending.Last != 4 || o.ledger.applied() != 4 {
		t.Errorf("buffered %+v, applied %d", pending, o.ledger.applied())
	}
}

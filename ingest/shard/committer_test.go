package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// journal is what a committer under test appended and answered.
type journal struct {
	records         []manifest.Record
	answers         []string
	floor, recorded uint64
	err             error         // of the next append
	busy            chan struct{} // an append waits for it to be closed, unless it is nil
}

func (j *journal) committer(payload int) *committer {
	return newCommitter(3, "a", payload, committerParts{
		judge: func(_ context.Context, calls []*commitCall) (committed accepted, err error) {
			for _, call := range calls {
				if call.msg.Subject != "refused" {
					committed.add(extent.Segment{Key: call.msg.Subject}, []extent.Extent{{Log: "t.a"}}, nil, 0)
				}
			}
			return committed, nil
		},
		condemn: func(keys []string) ([]string, error) {
			return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "0/live.sst" }), nil
		},
		condemned: func(key string) bool { return key == "0/checkpoint/dead.tree" },
		merge: func(_ context.Context, r wire.ReplaceRequest) error {
			if r.Inputs[0] == "refused" {
				return wire.ErrBadRequest
			}
			return nil
		},
		floor: func() (uint64, uint64) { return j.floor, j.recorded },
		append: func(ctx context.Context, r manifest.Record, _ accepted) error {
			if j.busy != nil {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-j.busy:
				}
			}
			if j.err != nil {
				return j.err
			}
			j.records, j.recorded = append(j.records, r), r.Floor
			return nil
		},
		answer: func(call *commitCall, status wire.Status) {
			j.answers = append(j.answers, fmt.Sprintf("%s %d", call.msg.Subject, status.Code))
		},
		answerMerge: func(call *mergeCall, status wire.Status) {
			j.answers = append(j.answers, fmt.Sprintf("%s %d", call.msg.Subject, status.Code))
		},
	})
}

// worker is a worker's request of a size.
func worker(name string, size int) *nats.Msg {
	return &nats.Msg{Subject: name, Data: make([]byte, size)}
}

// merging is a worker's request for a merge of a segment with another one.
func merging(t *testing.T, name, input string) appendRequest {
	t.Helper()
	data, err := wire.Encode(wire.ReplaceRequest{Inputs: []string{input, "0/b.sst"}})
	if err != nil {
		t.Fatal(err)
	}
	return appendRequest{merge: &mergeCall{msg: &nats.Msg{Subject: name, Data: data}}}
}

// TestGroups: what waits becomes one record as long as it fits into it, a checkpoint and a merge have one
// without commits, and the
// floor goes with everything.
func TestGroups(t *testing.T) {
	const payload = 4000
	const limit = payload / 4 * groupPayload
	checkpoint, merge := appendRequest{checkpoint: &manifest.Checkpoint{}}, merging(t, "m", "0/a.sst")
	sweep := appendRequest{sweep: &sweepCall{}}
	commit := func(size int) appendRequest { return appendRequest{commit: &commitCall{msg: worker("a", size)}} }
	for name, tc := range map[string]struct {
		first appendRequest
		wait  []appendRequest
		taken int
		left  bool // one was taken from the queue that is not in the group
	}{
		"none waits": {commit(limit), nil, 1, false},
		"all fit":    {commit(limit / 4), []appendRequest{commit(limit / 4), commit(limit / 4)}, 3, false},
		"one is too large": {commit(limit / 4), []appendRequest{commit(limit / 2), commit(limit / 2), commit(1)}, 2,
			true},
		"many": {commit(0), slices.Repeat([]appendRequest{commit(0)}, groupRequests+1), groupRequests,
			false},
		"floors go with commits": {appendRequest{}, []appendRequest{commit(1), {}, commit(1)}, 4, false},
		"floors go with others":  {appendRequest{}, []appendRequest{{}, checkpoint, {}}, 4, false},
		"and with merges":        {appendRequest{}, []appendRequest{{}, merge, {}}, 4, false},
		"a checkpoint after":     {commit(1), []appendRequest{{}, checkpoint}, 2, true},
		"a merge after":          {commit(1), []appendRequest{{}, merge}, 2, true},
		"a commit after":         {checkpoint, []appendRequest{commit(1)}, 1, true},
		"a commit after a merge": {merge, []appendRequest{commit(1)}, 1, true},
		"another checkpoint":     {checkpoint, []appendRequest{checkpoint}, 1, true},
		"another merge":          {merge, []appendRequest{merge}, 1, true},
		"a commit after a sweep": {sweep, []appendRequest{commit(1)}, 1, true},
		"a sweep after a merge":  {merge, []appendRequest{sweep}, 1, true},
	} {
		c := (&journal{}).committer(payload)
		c.requests = make(chan appendRequest, 2*groupRequests)
		for _, r := range tc.wait {
			c.requests <- r
		}
		group, left := c.group(tc.first)
		waiting := len(c.requests)
		if left != nil {
			waiting++
		}
		if len(group) != tc.taken || (left != nil) != tc.left || len(group)+waiting != 1+len(tc.wait) {
			t.Errorf("%s: %d are taken, %d left, one of them in hand: %v", name, len(group), waiting, left != nil)
		}
	}
}

// TestDeletedCheckpoint is not recorded: its object was put so long ago that it was taken for garbage.
func TestDeletedCheckpoint(t *testing.T) {
	j, done := &journal{floor: 7, recorded: 5}, make(chan error, 1)
	request := appendRequest{done: done, checkpoint: &manifest.Checkpoint{
		Object: extent.Segment{Key: "0/checkpoint/dead.tree"}}}
	if err := j.committer(4000).commit(t.Context(), []appendRequest{request}); err != nil {
		t.Fatal(err)
	}
	if len(j.records) != 1 || j.records[0].Kind != manifest.Floor || len(done) != 1 {
		t.Fatalf("recorded %+v, %d answers", j.records, len(done))
	}
	if err := <-done; !errors.Is(err, errCheckpoint) {
		t.Errorf("told %v", err)
	}
}

// TestRecordsOfGroups: a group is one record with the floor, or none if nothing is to be said, and each request has its
// answer.
func TestRecordsOfGroups(t *testing.T) {
	done := make(chan error, 3)
	commit := func(name string) appendRequest { return appendRequest{commit: &commitCall{msg: worker(name, 1)}} }
	floor := appendRequest{done: done}
	for name, tc := range map[string]struct {
		group    []appendRequest
		floor    uint64
		kind     manifest.Kind // 0: no record
		segments int
		answers  []string
		told     int // of requests that are no commits
	}{
		"commits": {[]appendRequest{commit("x"), commit("y")}, 7, manifest.Commit, 2, []string{"x 0", "y 0"},
			0},
		"a commit and the floor": {[]appendRequest{floor, commit("x")}, 7, manifest.Commit, 1, []string{"x 0"}, 1},
		"nothing is accepted":    {[]appendRequest{commit("refused")}, 5, 0, 0, []string{"refused 0"}, 0},
		"but the floor moved":    {[]appendRequest{commit("refused")}, 7, manifest.Floor, 0, []string{"refused 0"}, 0},
		"the floor":              {[]appendRequest{floor, floor}, 7, manifest.Floor, 0, nil, 2},
		"the floor, as it is":    {[]appendRequest{floor}, 5, 0, 0, nil, 1},
		"a checkpoint": {[]appendRequest{{checkpoint: &manifest.Checkpoint{}, done: done}, floor}, 5,
			manifest.TakeCheckpoint, 0, nil, 2},
		"a merge": {[]appendRequest{merging(t, "m", "0/a.sst"), floor}, 5, manifest.Merge, 0, []string{"m 0"}, 1},
		"a merge is refused": {[]appendRequest{merging(t, "m", "refused"), floor}, 5, 0, 0,
			[]string{fmt.Sprintf("m %d", wire.BadRequest)}, 1},
		"a merge is refused, and the floor moved": {[]appendRequest{merging(t, "m", "refused"), floor}, 7, manifest.Floor, 0,
			[]string{fmt.Sprintf("m %d", wire.BadRequest)}, 1},
	} {
		j := &journal{floor: tc.floor, recorded: 5}
		if err := j.committer(4000).commit(t.Context(), tc.group); err != nil {
			t.Fatal(err)
		}
		switch {
		case tc.kind == 0 && len(j.records) > 0:
			t.Errorf("%s: recorded %+v", name, j.records)
		case tc.kind != 0 && (len(j.records) != 1 || j.records[0].Kind != tc.kind || j.records[0].Floor != tc.floor ||
			j.records[0].Epoch != 3 || j.records[0].Owner != "a" || len(j.records[0].Segments) != tc.segments):
			t.Errorf("%s: recorded %+v", name, j.records)
		}
		if !slices.Equal(j.answers, tc.answers) || len(done) != tc.told {
			t.Errorf("%s: answered %q, and %d of the owner's own", name, j.answers, len(done))
		}
		for len(done) > 0 {
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestSweepCall: a look of the committer's makes no record, and tells what nothing names.
func TestSweepCall(t *testing.T) {
	j := &journal{floor: 5, recorded: 5}
	c := j.committer(4000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	dead, err := c.dead(ctx, []string{"0/a.sst", "0/live.sst", "0/b.sst"})
	if err != nil || !slices.Equal(dead, []string{"0/a.sst", "0/b.sst"}) || len(j.records) > 0 {
		t.Errorf("dead are %q, %v, recorded %+v", dead, err, j.records)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFencedGroup: all of it hears that the owner is none any more, and the committer ends.
func TestFencedGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{floor: 1, err: fmt.Errorf("%w: by another", manifest.ErrFenced), busy: make(chan struct{})}
		c := j.committer(4000)
		ended, told := make(chan error, 1), make(chan error, 1)
		go func() { ended <- c.run(t.Context()) }()
		go func() { told <- c.recordFloor(t.Context()) }()
		synctest.Wait()
		close(j.busy)
		if err := <-told; !errors.Is(err, manifest.ErrFenced) {
			t.Errorf("who asked for the floor hears %v", err)
		}
		if err := <-ended; !errors.Is(err, manifest.ErrFenced) {
			t.Errorf("it ended with %v", err)
		}
		j.err, j.busy = manifest.ErrFenced, nil
		err := c.commit(t.Context(), []appendRequest{{commit: &commitCall{msg: worker("x", 1)}}})
		if !errors.Is(err, manifest.ErrFenced) ||
			!slices.Equal(j.answers, []string{fmt.Sprintf("x %d", wire.NotOwner)}) {
			t.Errorf("a worker hears %q, %v", j.answers, err)
		}
	})
}

// TestFullQueue: workers are told Busy, and the owner's own requests wait for their turn, which comes.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{busy: make(chan struct{})}
		c := j.committer(4000)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx) }()
		c.offer(worker("first", 1))
		synctest.Wait() // it is being appended
		for range commitLimit {
			if !c.offer(worker("next", 1)) {
				t.Fatal("refused while there is room")
			}
		}
		told := make(chan error, 1)
		go func() { told <- c.recordCheckpoint(ctx, &manifest.Checkpoint{}) }()
		synctest.Wait()
		if c.offer(worker("too many", 1)) {
			t.Error("more is taken than the queue holds")
		}
		close(j.busy)
		if err := <-told; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(j.records); n < 3 || len(j.answers) != 1+commitLimit {
			t.Errorf("%d records, %d answers", n, len(j.answers))
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if err := c.recordFloor(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("who asks after the end hears %v", err)
		}
	})
}

// TestGroupInHandAtTheEnd is committed still, unless that takes long.
func TestGroupInHandAtTheEnd(t *testing.T) {
	for name, answers := range map[string]bool{"JetStream answers": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &journal{busy: make(chan struct{})}
				c := j.committer(4000)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- c.run(ctx) }()
				c.offer(worker("x", 1))
				synctest.Wait()
				cancel()
				synctest.Wait()
				if answers {
					close(j.busy)
				}
				if err := <-ended; !errors.Is(err, context.Canceled) || (len(j.records) == 1) != answers {
					t.Errorf("ended with %v after %d records", err, len(j.records))
				}
			})
		})
	}
}

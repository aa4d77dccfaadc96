package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/manifest"
	"dormouse/store/tree"
)

// appendRequest is what somebody wants the manifest to have: a worker's commit or merge, a checkpoint, a cut, or else
// the floor.
type appendRequest struct {
	commit     *commitCall
	merge      *mergeCall
	checkpoint *manifest.Checkpoint
	cut        *extent.Cut
	sweep      *sweepCall   // a look, and no record
	done       chan<- error // cap 1; nil for what is answered by message
}

// alone reports whether the request needs a record of its own, apart from the floor, which goes with everything.
func (r appendRequest) alone() bool {
	return r.merge != nil || r.checkpoint != nil || r.cut != nil || r.sweep != nil
}

// size is what the request has of the bytes of a record.
func (r appendRequest) size() int {
	switch {
	case r.commit != nil:
		return len(r.commit.msg.Data)
	case r.merge != nil && r.merge.msg != nil:
		return len(r.merge.msg.Data)
	}
	return 0
}

// commitCall is one worker's commit on its way to the manifest.
type commitCall struct {
	msg     *nats.Msg
	request wire.CommitRequest
	refused []wire.Refusal
	err     error // set when the request is no commit at all
}

// errCheckpoint means that a checkpoint cannot be recorded, and that another one is to be taken.
var errCheckpoint = errors.New("the checkpoint's object is not to be named")

// sweepCall asks which objects nothing names, while nothing is being committed. None of them can be named any more.
type sweepCall struct{ keys, dead []string }

// mergeCall is one worker's merge on its way to the manifest, or the owner's own without a message.
type mergeCall struct {
	msg     *nats.Msg
	request wire.ReplaceRequest
}

const (
	commitLimit = 64          // requests waiting, each at most max_payload
	lastCommit  = time.Second // a commit may go on for so long after the end
)

// Bounds of one manifest record: it must fit into max_payload, which its zstd form does with room to spare.
const (
	groupRequests = 64
	groupPayload  = 3 // quarters of max_payload that the requests of one record may have in all
)

// committer is the only way into the manifest: one queue of requests, of which what fits becomes one record. It appends
// the record, has it applied, and answers. What it works with are few functions, so that it is tested without servers
// and disks.
type committer struct {
	record   manifest.Record // what all records of the owner begin with: epoch and node
	limit    int             // bytes of the requests of one record
	requests chan appendRequest
	parts    committerParts
}

// committerParts are what a committer needs of others. Only its goroutine calls them.
type committerParts struct {
	// judge decides on the commits of a group and returns what is to be committed. It notes in each call what is refused.
	judge func(ctx context.Context, calls []*commitCall) (accepted, error)
	// merge returns nil when the outputs of a merge may take the place of its inputs.
	merge func(ctx context.Context, request wire.ReplaceRequest) error
	// condemn returns which objects the manifest does not name, and lets it never name them.
	condemn func(keys []string) (dead []string, err error)
	// condemned reports whether an object is one of these.
	condemned func(key string) bool
	// floor returns the floor as it is, and as the manifest has it.
	floor func() (floor, recorded uint64)
	// append makes a record part of the manifest, and then of the local state.
	append func(ctx context.Context, r manifest.Record, committed accepted) error
	// answer answers a worker.
	answer func(call *commitCall, status wire.Status)
	// answerMerge likewise.
	answerMerge func(call *mergeCall, status wire.Status)
}

func newCommitter(epoch uint64, node string, maxPayload int, parts committerParts) *committer {
	return &committer{record: manifest.Record{Epoch: epoch, Owner: node}, limit: maxPayload / 4 * groupPayload,
		requests: make(chan appendRequest, commitLimit), parts: parts}
}

// offer takes a worker's request, unless the queue is full.
func (c *committer) offer(msg *nats.Msg) bool {
	return offer(c.requests, appendRequest{commit: &commitCall{msg: msg}})
}

// offerMerge takes a worker's merge, unless the queue is full.
func (c *committer) offerMerge(msg *nats.Msg) bool {
	return offer(c.requests, appendRequest{merge: &mergeCall{msg: msg}})
}

// recordFloor has the floor recorded, if the manifest has a lower one. It returns once the manifest has it.
func (c *committer) recordFloor(ctx context.Context) error { return c.ask(ctx, appendRequest{}) }

// recordCheckpoint has a checkpoint recorded.
func (c *committer) recordCheckpoint(ctx context.Context, at *manifest.Checkpoint) error {
	return c.ask(ctx, appendRequest{checkpoint: at})
}

// recordCut has a cut recorded: when it returns, nothing of that is buffered or taken in any more.
func (c *committer) recordCut(ctx context.Context, cut extent.Cut) error {
	return c.ask(ctx, appendRequest{cut: &cut})
}

// drop takes a live segment out of the archive, all of which is cut.
func (c *committer) drop(ctx context.Context, s extent.Summary, cut uint64) error {
	request := wire.ReplaceRequest{Inputs: []string{s.Object.Key}, Cut: cut, Left: extent.Size{Entries: s.Entries,
		Bytes: s.Bytes}}
	return c.ask(ctx, appendRequest{merge: &mergeCall{request: request}})
}

// dead returns which of these objects nothing names, nor will by a commit that came before.
func (c *committer) dead(ctx context.Context, keys []string) ([]string, error) {
	call := &sweepCall{keys: keys}
	err := c.ask(ctx, appendRequest{sweep: call})
	return call.dead, err
}

// ask waits for room in the queue, in the order in which those came who wait, and then for the answer.
func (c *committer) ask(ctx context.Context, r appendRequest) error {
	done := make(chan error, 1)
	r.done = done
	select {
	case <-ctx.Done():
		return ctx.Err()
	case c.requests <- r:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

// run commits what is asked for, until ctx is done or something fails that ends the epoch.
//
// A group in hand when ctx ends is still committed, if JetStream answers soon: the work is done, and whoever takes the
// shard over would have it done again.
func (c *committer) run(ctx context.Context) error {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastCommit, cancel) })()
	var next *appendRequest // taken from the queue, but not into the group before
	for {
		if next == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case r := <-c.requests:
				next = &r
			}
		}
		var group []appendRequest
		group, next = c.group(*next)
		if err := c.commit(late, group); err != nil {
			return err
		}
	}
}

// group adds what else waits to a request, as long as it fits into the same record: commits with commits, and the
// floor with everything. left is one that did not fit.
func (c *committer) group(first appendRequest) (group []appendRequest, left *appendRequest) {
	group = []appendRequest{first}
	size, commits, alone := first.size(), first.commit != nil, first.alone()
	for len(group) < groupRequests {
		select {
		case r := <-c.requests:
			size += r.size()
			if size > c.limit || r.commit != nil && alone || r.alone() && (commits || alone) {
				return group, &r
			}
			commits, alone = commits || r.commit != nil, alone || r.alone()
			group = append(group, r)
		default:
			return group, nil
		}
	}
	return group, nil
}

// commit makes a group one record and answers every request. The steps, and what a crash after each leaves: (1) judged:
// nothing has happened, the segments are orphans; (2) appended to the manifest: committed for good, and the next owner
// applies the record before it does anything else; (3) applied to Pebble; (4) answered.
func (c *committer) commit(ctx context.Context, group []appendRequest) error {
	record, committed, err := c.judge(ctx, group)
	if err != nil {
		c.answer(group, err)
		return fmt.Errorf("looking a commit over: %w", err)
	}
	var recorded uint64
	if record.Floor, recorded = c.parts.floor(); record.Kind != manifest.Floor || record.Floor > recorded {
		err = c.parts.append(ctx, record, committed)
	}
	c.answer(group, err)
	return err
}

// judge returns the record that a group makes. A merge that is refused is answered, and leaves the floor.
func (c *committer) judge(ctx context.Context, group []appendRequest) (record manifest.Record, committed accepted,
	err error) {
	record = c.record
	record.Kind = manifest.Floor
	var calls []*commitCall
	for i, r := range group {
		switch {
		case r.commit != nil:
			calls = append(calls, r.commit)
		case r.checkpoint != nil && c.parts.condemned(r.checkpoint.Object.Key): // put longer than a grace ago
			r.done <- fmt.Errorf("%w: it was deleted with what nothing named", errCheckpoint)
			group[i] = appendRequest{}
		case r.checkpoint != nil:
			record.Kind, record.Checkpoint = manifest.TakeCheckpoint, r.checkpoint
		case r.cut != nil:
			record.Kind, record.Cut = manifest.MakeCut, r.cut
		case r.sweep != nil:
			if r.sweep.dead, err = c.parts.condemn(r.sweep.keys); err != nil {
				r.done <- err
				group[i] = appendRequest{}
			}
		case r.merge != nil:
			if err := c.mergeOf(ctx, r.merge, &record); err != nil {
				c.answerMerge(r, err, wire.StatusOf(err))
				group[i] = appendRequest{}
			}
		}
	}
	if len(calls) == 0 {
		return record, committed, nil
	}
	committed, err = c.parts.judge(ctx, calls)
	if record.Segments = committed.segments; len(record.Segments) > 0 {
		record.Kind = manifest.Commit
	}
	return record, committed, err
}

// mergeOf makes the record that of a merge.
func (c *committer) mergeOf(ctx context.Context, call *mergeCall, record *manifest.Record) error {
	if call.msg != nil {
		if err := decodeRequest(call.msg, &call.request); err != nil {
			return err
		}
	}
	if err := c.parts.merge(ctx, call.request); err != nil {
		return err
	}
	record.Kind = manifest.Merge
	for i := range call.request.Outputs {
		call.request.Outputs[i].Cut = call.request.Cut
	}
	record.Merge = &tree.Replacement{Inputs: call.request.Inputs, Outputs: call.request.Outputs}
	return nil
}

// answer tells all of a group that it is in the manifest, or what failed.
func (c *committer) answer(group []appendRequest, err error) {
	told := err
	if errors.Is(err, manifest.ErrFenced) {
		told = fmt.Errorf("%w: %w", wire.ErrNotOwner, err)
	}
	for _, r := range group {
		switch {
		case r.commit != nil:
			c.parts.answer(r.commit, wire.StatusOf(told))
		case r.merge != nil:
			c.answerMerge(r, err, wire.StatusOf(told))
		case r.done != nil:
			r.done <- err
		}
	}
}

// answerMerge answers a merge: a worker by message, the owner itself by the error.
func (c *committer) answerMerge(r appendRequest, err error, status wire.Status) {
	if r.merge.msg == nil {
		r.done <- err
		return
	}
	c.parts.answerMerge(r.merge, status)
}

package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"dormouse/internal/wire"
	"dormouse/scheduler"
)

// shardStates is what a node knows of its shards, for readiness, status and metrics; bounded by the number of shards.
type shardStates struct {
	mu sync.Mutex
	by map[wire.Shard]shardStatus
	on map[wire.Shard]*advance // how they get on
	// begun is set once the sources are known: before, an empty map must not look ready.
	begun bool
}

type shardStatus struct {
	state  wire.ShardState
	holder string // node that holds the lease, as far as is known
	owner  *owner // while claiming and owned
	failed error  // why this node could not own it when it last tried, while starting and claiming
}

func newShardStates() *shardStates {
	return &shardStates{by: make(map[wire.Shard]shardStatus), on: make(map[wire.Shard]*advance)}
}

func (s *shardStates) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
}

func (s *shardStates) set(shard wire.Shard, status shardStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[shard] = status
}

func (s *shardStates) drop(shard wire.Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, shard)
	delete(s.on, shard)
}

// advance returns what tells how a shard gets on.
func (s *shardStates) advance(shard wire.Shard) *advance {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on[shard] == nil {
		s.on[shard] = &advance{}
	}
	return s.on[shard]
}

// ready returns nil when every shard is served, here or elsewhere.
func (s *shardStates) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		return errors.New("ingest has not found its shards yet")
	}
	if len(s.by) == 0 {
		return errors.New("no source stream is left, so that nothing that is published is kept: dormouse provision, or a " +
			"new start, makes one")
	}
	var errs []error
	for _, shard := range slices.Sorted(maps.Keys(s.by)) {
		if stuck := s.on[shard].stuck(); stuck != nil {
			errs = append(errs, stuckError(shard, stuck))
		}
		switch status := s.by[shard]; status.state {
		case wire.ShardOwned, wire.ShardStandby:
		case wire.ShardClaiming:
			err := fmt.Errorf("shard %s is %s: %s", shard, status.state,
				cmp.Or(status.owner.progress.String(), "asking JetStream"))
			if status.failed != nil {
				err = fmt.Errorf("%w, and the last try failed: %w", err, status.failed)
			}
			errs = append(errs, err)
		default:
			err := fmt.Errorf("shard %s is %s: no node is seen to own it yet", shard, status.state)
			if status.failed != nil {
				err = fmt.Errorf("%w, and this one cannot: %w", err, status.failed)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// remarks says, for each shard that is served but behind where its stream was at the takeover, how far it is, and which
// take nothing in for want of room.
func (s *shardStates) remarks() (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shard := range slices.Sorted(maps.Keys(s.by)) {
		if status := s.by[shard]; status.state == wire.ShardOwned && status.owner.progress.left() > 0 {
			lines = append(lines, fmt.Sprintf("shard %s: %s", shard, &status.owner.progress))
		}
		if s.on[shard].isFull() {
			lines = append(lines, fmt.Sprintf("shard %s: the buffer is at its limit: taking nothing in until workers have "+
				"drained it", shard))
		}
	}
	return lines
}

// report says where the node stands with each shard, ascending.
func (s *shardStates) report() []wire.ShardStatus {
	s.mu.Lock()
	by := maps.Clone(s.by) // which the disk, that figures read, must not hold up
	on := maps.Clone(s.on)
	s.mu.Unlock()
	all := make([]wire.ShardStatus, 0, len(by))
	for _, shard := range slices.Sorted(maps.Keys(by)) {
		status := by[shard]
		one := wire.ShardStatus{Shard: shard, State: status.state, Holder: status.holder, Full: on[shard].isFull(),
			Stuck: on[shard].stuck()}
		if o := status.owner; o != nil {
			one.RecordsLeft, one.EntriesLeft = o.progress.records.Load(), o.progress.left()
			if status.state == wire.ShardOwned {
				o.tell(&one)
			}
		}
		all = append(all, one)
	}
	return all
}

// tell fills in what only an owner knows.
func (o *owner) tell(one *wire.ShardStatus) {
	f, err := o.figures()
	if err != nil {
		o.outages.requests.Failed(err)
	}
	one.Epoch, one.Applied = o.epoch, f.applied
	one.Logs, one.Queued, one.Entries, one.Bytes = f.Active, f.Queued, f.Entries, f.Bytes
	if !f.oldest.IsZero() {
		one.Oldest = f.oldest.UnixNano()
	}
}

// load is what the owned shards of a node hold together.
type load struct {
	scheduler.Stats
	owned                    int    // shards
	stuck                    int    // shards that do not get past a sequence
	claiming                 int    // shards
	recordsLeft, entriesLeft uint64 // of takeovers
}

// load sums up all shards.
func (s *shardStates) load() load {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all load
	for shard, status := range s.by {
		if s.on[shard].stuck() != nil {
			all.stuck++
		}
		if status.owner == nil {
			continue
		}
		all.recordsLeft += status.owner.progress.records.Load()
		all.entriesLeft += status.owner.progress.left()
		if status.state != wire.ShardOwned {
			all.claiming++
			continue
		}
		all.owned++
		one := status.owner.sched.Stats()
		all.Active += one.Active
		all.Armed += one.Armed
		all.Queued += one.Queued
		all.Entries += one.Entries
		all.Bytes += one.Bytes
	}
	return all
}

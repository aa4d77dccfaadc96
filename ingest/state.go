package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dormouse/ingest/shard"
	"dormouse/internal/outage"
	"dormouse/internal/shardid"
	"dormouse/internal/wire"
	"dormouse/scheduler"
)

// shardStates is what a node knows of its shards, for readiness, status and metrics; bounded by the number of shards.
type shardStates struct {
	mu sync.Mutex
	by map[shardid.Shard]shardStatus
	on map[shardid.Shard]*shard.Advance // how they get on
	// begun is set once the sources are known: before, an empty map must not look ready.
	begun bool
}

type shardStatus struct {
	state    wire.ShardState
	holder   string          // node that holds the lease, as far as is known
	owner    *shard.Owner    // while owned
	progress *shard.Progress // while claiming and owned
	failed   error           // why this node could not own it when it last tried, while starting and claiming
}

func newShardStates() *shardStates {
	return &shardStates{by: make(map[shardid.Shard]shardStatus), on: make(map[shardid.Shard]*shard.Advance)}
}

func (s *shardStates) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
}

func (s *shardStates) set(shard shardid.Shard, status shardStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[shard] = status
}

func (s *shardStates) drop(shard shardid.Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, shard)
	delete(s.on, shard)
}

// advance returns what tells how a shard gets on.
func (s *shardStates) advance(of shardid.Shard) *shard.Advance {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on[of] == nil {
		s.on[of] = &shard.Advance{}
	}
	return s.on[of]
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
		if stuck := s.on[shard].Stuck(); stuck != nil {
			errs = append(errs, stuckError(shard, stuck))
		}
		switch status := s.by[shard]; status.state {
		case wire.ShardOwned, wire.ShardStandby:
		case wire.ShardClaiming:
			err := fmt.Errorf("shard %s is %s: %s", shard, status.state,
				cmp.Or(status.progress.String(), "asking JetStream"))
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
		if status := s.by[shard]; status.state == wire.ShardOwned && status.progress.Left() > 0 {
			lines = append(lines, fmt.Sprintf("shard %s: %s", shard, status.progress))
		}
		if err := s.on[shard].Unkept(); err != nil && s.by[shard].state == wire.ShardOwned {
			lines = append(lines, fmt.Sprintf("shard %s: what policies keep no longer does not expire: %s", shard,
				outage.Short(err.Error())))
		}
		if s.on[shard].IsFull() {
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
		one := wire.ShardStatus{Shard: shard, State: status.state, Holder: status.holder, Full: on[shard].IsFull(),
			Stuck: on[shard].Stuck()}
		if status.progress != nil {
			one.RecordsLeft, one.EntriesLeft = status.progress.Records(), status.progress.Left()
		}
		if status.owner != nil {
			status.owner.Tell(&one)
		}
		all = append(all, one)
	}
	return all
}

// load is what the owned shards of a node hold together.
type load struct {
	scheduler.Stats
	owned                    int    // shards
	stuck                    int    // shards that do not get past a sequence
	claiming                 int    // shards
	recordsLeft, entriesLeft uint64 // of takeovers
	segments, fresh          uint64 // live ones, and those of them that are not merged
}

// load sums up all shards.
func (s *shardStates) load() load {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all load
	for shard, status := range s.by {
		if s.on[shard].Stuck() != nil {
			all.stuck++
		}
		if status.progress == nil {
			continue
		}
		all.recordsLeft += status.progress.Records()
		all.entriesLeft += status.progress.Left()
		if status.owner == nil {
			all.claiming++
			continue
		}
		all.owned++
		live, fresh := status.owner.Segments()
		all.segments += live
		all.fresh += fresh
		one := status.owner.Stats()
		all.Active += one.Active
		all.Armed += one.Armed
		all.Queued += one.Queued
		all.Entries += one.Entries
		all.Bytes += one.Bytes
	}
	return all
}

// owned returns the owners of this node that serve.
func (s *shardStates) owned() (owners []*shard.Owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, status := range s.by {
		if status.owner != nil {
			owners = append(owners, status.owner)
		}
	}
	return owners
}

// streamLag sums up the lags of the shards that this node owns.
func (s *shardStates) streamLag() (lag float64) {
	for _, o := range s.owned() {
		lag += float64(o.Lag())
	}
	return lag
}

// oldestAge is the age of the oldest buffered entry of all shards that this node owns. A shard that cannot tell is left
// out.
func (s *shardStates) oldestAge(now time.Time) (age time.Duration) {
	for _, o := range s.owned() {
		if oldest := o.Oldest(); !oldest.IsZero() {
			age = max(age, now.Sub(oldest))
		}
	}
	return age
}

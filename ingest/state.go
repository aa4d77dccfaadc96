package ingest

import (
	"errors"
	"fmt"
	"sync"

	"dormouse/internal/wire"
	"dormouse/scheduler"
)

// shardState is where a keeper stands with its shard.
type shardState string

const (
	stateStarting shardState = "starting" // neither owned nor seen to be owned by another node
	stateStandby  shardState = "standby"  // another node holds the lease
	stateClaiming shardState = "claiming" // holds the lease, catching up with the manifest
	stateOwned    shardState = "owned"
)

// shardStates is what a node knows of its shards, for readiness and metrics; bounded by the number of shards.
type shardStates struct {
	mu *sync.Mutex
	by map[wire.Shard]shardStatus
	// begun is set once the sources are known: before, an empty map must not look ready.
	begun *bool
}

type shardStatus struct {
	state shardState
	sched *scheduler.Scheduler // while owned
}

func newShardStates() shardStates {
	return shardStates{mu: new(sync.Mutex), by: make(map[wire.Shard]shardStatus), begun: new(bool)}
}

func (s shardStates) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.begun = true
}

func (s shardStates) set(shard wire.Shard, state shardState, sched *scheduler.Scheduler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by[shard] = shardStatus{state: state, sched: sched}
}

func (s shardStates) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !*s.begun {
		return errors.New("ingest has not found its shards yet")
	}
	var errs []error
	for shard, status := range s.by {
		if status.state != stateOwned && status.state != stateStandby {
			errs = append(errs, fmt.Errorf("shard %s is %s", shard, status.state))
		}
	}
	return errors.Join(errs...)
}

// stats sums up the schedulers of all owned shards.
func (s shardStates) stats() scheduler.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all scheduler.Stats
	for _, status := range s.by {
		if status.sched == nil {
			continue
		}
		one := status.sched.Stats()
		all.Active += one.Active
		all.Armed += one.Armed
		all.Queued += one.Queued
		all.Entries += one.Entries
		all.Bytes += one.Bytes
	}
	return all
}

// owned counts the shards that this node owns.
func (s shardStates) owned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, status := range s.by {
		if status.state == stateOwned {
			n++
		}
	}
	return n
}

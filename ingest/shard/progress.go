package shard

import (
	"fmt"
	"sync/atomic"
)

// Progress says how far a takeover is: first the manifest is applied, then the source stream is replayed up to where it
// ended at the claim. It is written by the owner and read by health checks and metrics.
type Progress struct {
	records    atomic.Uint64 // manifest records, then tables of contents, that are still to be read
	replayFrom atomic.Uint64 // sequences: the replay runs from above the one to the other
	replayTo   atomic.Uint64
	replayed   atomic.Uint64
}

func (p *Progress) replay(from, to uint64) {
	p.replayFrom.Store(from)
	p.replayed.Store(from)
	p.replayTo.Store(max(from, to))
	p.records.Store(0)
}

// replayedUpTo notes that the stream was taken in up to seq.
func (p *Progress) replayedUpTo(seq uint64) { p.replayed.Store(min(seq, p.replayTo.Load())) }

// Records returns how many manifest records are still to be applied.
func (p *Progress) Records() uint64 { return p.records.Load() }

// Left returns how many sequences are still to be replayed.
func (p *Progress) Left() uint64 { return p.replayTo.Load() - p.replayed.Load() }

func (p *Progress) String() string {
	if records := p.records.Load(); records > 0 {
		return fmt.Sprintf("%d manifest records to go", records)
	}
	left, all := p.Left(), p.replayTo.Load()-p.replayFrom.Load()
	if left == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d entries to replay (%d %% done)", left, all, 100*(all-left)/all)
}

package ingest

import (
	"fmt"
	"sync/atomic"
)

// progress says how far a takeover is: first the manifest is applied, then the source stream is replayed up to where it
// ended at the claim. It is written by the owner and read by health checks and metrics.
type progress struct {
	records    atomic.Uint64 // manifest records, and rows of snapshots, that are still to be applied
	replayFrom atomic.Uint64 // sequences: the replay runs from above the one to the other
	replayTo   atomic.Uint64
	replayed   atomic.Uint64
}

func (p *progress) replay(from, to uint64) {
	p.replayFrom.Store(from)
	p.replayed.Store(from)
	p.replayTo.Store(max(from, to))
	p.records.Store(0)
}

// taken notes that the stream was taken in up to seq.
func (p *progress) taken(seq uint64) { p.replayed.Store(min(seq, p.replayTo.Load())) }

// left returns how many sequences are still to be replayed.
func (p *progress) left() uint64 { return p.replayTo.Load() - p.replayed.Load() }

func (p *progress) String() string {
	if records := p.records.Load(); records > 0 {
		return fmt.Sprintf("%d manifest records to go", records)
	}
	left, all := p.left(), p.replayTo.Load()-p.replayFrom.Load()
	if left == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d entries to replay (%d %% done)", left, all, 100*(all-left)/all)
}

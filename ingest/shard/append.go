package shard

import (
	"context"
	"fmt"
	"slices"
	"time"

	"dormouse/internal/shardid"
	"dormouse/store/manifest"
)

// appender is an owner's hold on the manifest: it makes records part of it, and knows since when its floors are there.
type appender struct {
	manifest *manifest.Manifest // appended to by the committer alone once the owner runs
	shard    shardid.Shard
	ledger   *ledger
	advance  *Advance
	floors   floorLog
	garbage  *garbage        // takes what merges have replaced
	before   manifest.Record // the last before the claim, if its floor holds; else without an ID
}

// append makes a record part of the manifest and then of the local state. What fails after the first is found again by
// the next owner.
func (a *appender) append(ctx context.Context, r manifest.Record, committed accepted) error {
	before, _ := a.manifest.Last()
	r.Source = a.ledger.source(before.Source)
	seq, err := a.manifest.Append(ctx, r)
	if err != nil {
		return err
	}
	a.advance.Done(Committing)
	r, _ = a.manifest.Last() // with what Append has set
	replaced, err := a.ledger.apply(seq, r, committed)
	if err != nil {
		return err
	}
	now := time.Now()
	a.floors.recorded(r.Floor, now)
	a.garbage.add(replaced, now)
	return nil
}

// stillThere returns an error that wraps manifest.ErrFenced when the last record that this owner has applied is not
// there any more: the servers lost their last seconds in a power failure that this process lived through. What is
// removed on the strength of the manifest must not be removed then.
func (a *appender) stillThere(ctx context.Context) error {
	pos := a.ledger.position()
	presence, err := a.manifest.Has(ctx, pos.ManifestSeq, pos.ManifestID)
	if err == nil && presence != manifest.Same {
		err = fmt.Errorf("%w: shard %s: record %d is not there any more", manifest.ErrFenced, a.shard, pos.ManifestSeq)
	}
	return err
}

// inheritFloors looks since when the floors of earlier owners are recorded, so that the delay of trimming does not
// begin anew with each takeover: from the last record before the claim back to one that is as old as the delay. After
// an error it has what could be read, and the rest is trimmed later.
func (a *appender) inheritFloors(ctx context.Context, delay time.Duration) error {
	var earlier []floorSample // descending
	r, ok, err := a.before, a.before.ID != "", error(nil)
	for ok && err == nil && len(earlier) < maxFloorSamples {
		now := time.Now()
		age := leastAge(r.Stored, a.manifest.Opened(), now)
		earlier = append(earlier, floorSample{r.Floor, now.Add(-age)})
		if age > delay {
			break
		}
		after := r
		r, ok, err = a.manifest.Before(ctx, after)
		// else an owner found that floors did not hold
		ok = ok && r.Floor <= after.Floor && r.Source.Created.Equal(after.Source.Created)
	}
	slices.Reverse(earlier)
	a.floors.inherit(earlier)
	return err
}

// leastAge returns how old a record is whose time is the stream's server's, by what that server's clock says now and by
// this machine's: the less of both, so that one clock that jumps trims nothing early.
func leastAge(stored, serverNow, ownNow time.Time) time.Duration {
	if stored.IsZero() {
		return 0
	}
	return max(0, min(serverNow.Sub(stored), ownNow.Sub(stored)))
}

package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dormouse/internal/wire"
	"dormouse/store/manifest"
)

// errAnotherSource: the shard's archive is of another stream than the one that is there.
var errAnotherSource = errors.New("the shard's archive is of another stream")

// resume returns the floor from which a new owner goes on, and what its claim says of the source stream. That is the
// last record's floor, unless the stream is not as it was then:
//
//   - it lost its end in a power failure, after which the floor had survived. What was published since has sequences
//     below the floor and is not archived; so all that the stream has is looked at again, and the catalog tells what it
//     has.
//   - it was made anew. If its sequences begin above all that was ever taken in, the shard goes on there. If not, they
//     would be used twice, and the shard cannot be owned until somebody has decided.
func (c *claim) resume(ctx context.Context, last manifest.Record) (floor uint64, source manifest.Source, err error) {
	info := c.from.stream.CachedInfo()
	whole := max(info.State.FirstSeq, 1) - 1
	anew := manifest.Source{Created: info.Created, Seq: whole}
	switch {
	case last.Epoch == 0: // the shard's first owner: what the stream dropped before is nobody's loss
		return whole, anew, nil
	case !last.Source.Created.Equal(info.Created) && whole < last.Source.Seq:
		return 0, source, fmt.Errorf("%w: shard %s has archived up to sequence %d of a stream that was made at %s, and "+
			"stream %s was made at %s and begins at %d. Delete it and run dormouse provision, which makes it begin where "+
			"the old one ended; or make it so yourself, with first_seq %d; "+
			"or forget the archive: nats stream purge DORMOUSE_MANIFEST --subject %s",
			errAnotherSource, c.Source.Shard, last.Source.Seq, last.Source.Created.Format(time.RFC3339),
			c.Source.Stream, info.Created.Format(time.RFC3339), whole+1,
			last.Source.Seq+1, wire.ManifestSubject(c.Source.Shard))
	case !last.Source.Created.Equal(info.Created):
		c.Logger.Warn("the source stream was made anew and goes on where the old one ended: what the old one held beyond "+
			"the archive is gone", "archived", last.Floor, "from", whole+1)
		return whole, anew, nil
	}
	same, err := c.from.has(ctx, last.Source.Seq, last.Source.Time)
	if err != nil || same {
		return last.Floor, last.Source, err
	}
	c.Logger.Warn("the source stream lost its end (power failure before a sync?): all of it is compared with the "+
		"archive again", "taken_in", last.Source.Seq, "stream_last", c.from.stream.CachedInfo().State.LastSeq)
	return min(last.Floor, whole), anew, nil
}

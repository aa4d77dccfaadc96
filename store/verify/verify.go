// Package verify compares an archive with the record of it: every segment is read again, and what it holds is held
// against the catalog, and the catalog against the manifest.
//
// It changes nothing. Open store/segment for how one object is checked.
package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/cache/catalog"
	"dormouse/store/client"
	"dormouse/store/identity"
	"dormouse/store/manifest"
	"dormouse/store/segment"
)

// Verifier compares the archive with the record of it. Its memory is that of one segment and one page of extents, and
// some 200 bytes for each segment of a shard.
type Verifier struct {
	Client   *client.Client
	Bucket   *bucket.Bucket
	Bad      func(error)              // called for each thing that is wrong or could not be read; it names object or log
	Progress func(done, total uint64) // segments of a shard; may be nil

	inARow int // unread segments
}

// Report sums up a verification. What is bad is not what was committed; of what is unread nothing is known, since the
// bucket did not give it.
type Report struct {
	Segments, Extents, Entries, Bad, Unread uint64
}

// mostUnread objects one after the other end a verification: the bucket is away.
const mostUnread = 5

// ErrUnread is wrapped when a bucket gives nothing any more.
var ErrUnread = errors.New("the archive does not answer")

// Verify checks one log, or everything when log is empty. The error is what kept it from finishing; what is wrong with
// the archive goes to Bad and into the report.
func (v *Verifier) Verify(ctx context.Context, log string) (Report, error) {
	var r Report
	if err := identity.Verify(ctx, v.Client.JS(), v.Bucket); err != nil {
		return r, err
	}
	sources, err := v.Client.Sources(ctx)
	if err != nil {
		return r, err
	}
	for _, source := range sources {
		if log != "" {
			err = v.verifyLog(ctx, source.Shard, log, &r)
		} else {
			err = v.verifyShard(ctx, source.Shard, &r)
		}
		if err != nil {
			return r, err
		}
	}
	if log != "" && r.Extents == 0 {
		return r, v.notArchived(ctx, sources, log)
	}
	return r, nil
}

// notArchived returns nil for a log that is to be archived still, and client.ErrNoLog for one that nobody knows.
func (v *Verifier) notArchived(ctx context.Context, sources []topology.Source, log string) error {
	for _, source := range sources {
		if held, err := v.Client.Held(ctx, source.Shard, wire.HeldRequest{Log: log}); err != nil || held.Buffered {
			return err
		}
	}
	return fmt.Errorf("%w in the archive: %s", client.ErrNoLog, log)
}

// bad tells what is wrong with an object or a log, or what kept an object from being read.
func (v *Verifier) bad(r *Report, err error) {
	if isUnread(err) {
		r.Unread++
	} else {
		r.Bad++
	}
	v.Bad(err)
}

// wrong is what comparing finds: something was read, and it is not what was committed.
type wrong struct{ error }

func wrongf(format string, args ...any) error { return wrong{fmt.Errorf(format, args...)} }

// isUnread reports whether err says nothing of the object, but that the bucket did not give it.
func isUnread(err error) bool {
	if errors.As(err, &wrong{}) {
		return false
	}
	for _, harm := range []error{bucket.ErrNotFound, segment.ErrCorrupt, catalog.ErrCorrupt} {
		if errors.Is(err, harm) {
			return false
		}
	}
	return true
}

// verifyLog checks the segments of one log and the order of its extents.
func (v *Verifier) verifyLog(ctx context.Context, shard shardid.Shard, log string, r *Report) error {
	return v.eachExtent(ctx, shard, wire.ExtentsRequest{Log: log}, r, func(l extent.Located) error {
		r.Segments++
		r.Extents++
		r.Entries += l.Extent.Count
		_, err := v.verifySegment(ctx, l.Segment, []extent.Extent{l.Extent}, r)
		return err
	})
}

// holdings sums up what the catalog says that a segment holds, whatever the order in which it is told.
type holdings struct {
	size, extents, entries, digest uint64
}

func (h *holdings) add(e extent.Extent) {
	h.extents++
	h.entries += e.Count
	row := catalog.RowOf(e, extent.Segment{})
	h.digest += xxhash.Sum64(append(row.Key, row.Value...))
}

// verifyShard checks that the catalog is what the manifest says, and that every segment in it holds what the catalog
// has of it. The catalog is read once, in the order of the logs; the segments' share of it is kept as sums and checked
// segment by segment. A segment of which only a part was committed is looked at again at the end, extent by extent.
func (v *Verifier) verifyShard(ctx context.Context, shard shardid.Shard, r *Report) error {
	inManifest, head, err := v.readManifest(ctx, shard, r)
	if errors.Is(err, manifest.ErrGap) { // a snapshot was taken meanwhile
		inManifest, head, err = v.readManifest(ctx, shard, r)
	}
	if err != nil {
		return err
	}
	in := make(map[string]*holdings) // by segment
	var inCatalog Report
	err = v.eachExtent(ctx, shard, wire.ExtentsRequest{All: true, MinManifest: head}, r, func(l extent.Located) error {
		h := in[l.Segment.Key]
		if h == nil {
			h = &holdings{size: l.Segment.Size}
			in[l.Segment.Key] = h
		}
		h.add(l.Extent)
		inCatalog.Extents++
		inCatalog.Entries += l.Extent.Count
		return nil
	})
	if err != nil {
		return err
	}
	// What was committed meanwhile is in the catalog only; less than the manifest is wrong at any time.
	now, _, err := v.Client.Head(ctx, shard)
	if err != nil {
		return err
	}
	less := inCatalog.Extents < inManifest.Extents || inCatalog.Entries < inManifest.Entries
	if less || now == head && inCatalog != inManifest {
		v.bad(r, wrongf("the catalog of shard %s has %d extents with %d entries, the manifest %d with %d: delete the "+
			"owner's data/pebble while it is stopped, and it is rebuilt", shard, inCatalog.Extents, inCatalog.Entries,
			inManifest.Extents, inManifest.Entries))
	}
	return v.verifySegments(ctx, shard, in, r)
}

// verifySegments reads each segment and compares it with what the catalog has of it.
func (v *Verifier) verifySegments(ctx context.Context, shard shardid.Shard, in map[string]*holdings, r *Report) error {
	partial := make(map[string][]extent.Extent)
	done := uint64(0)
	for _, key := range slices.Sorted(maps.Keys(in)) {
		want := in[key]
		r.Segments++
		r.Extents += want.extents
		r.Entries += want.entries
		holds, err := v.verifySegment(ctx, extent.Segment{Key: key, Size: want.size}, nil, r)
		if err != nil {
			return err
		}
		have := holdings{size: want.size}
		for _, e := range holds {
			have.add(e)
		}
		if holds != nil && have != *want {
			partial[key] = holds
		}
		done++
		v.progress(done, uint64(len(in)))
	}
	if len(partial) == 0 {
		return nil
	}
	return v.eachExtent(ctx, shard, wire.ExtentsRequest{All: true}, &Report{}, func(l extent.Located) error {
		holds, ok := partial[l.Segment.Key]
		if !ok {
			return nil
		}
		i, found := slices.BinarySearchFunc(holds, l.Extent.Log, func(e extent.Extent, log string) int {
			return strings.Compare(e.Log, log)
		})
		if !found || holds[i] != l.Extent {
			v.bad(r, wrongf("segment %s: it does not hold log %s from %d to %d with %d entries, which was committed of it",
				l.Segment.Key, l.Extent.Log, l.Extent.First, l.Extent.Last, l.Extent.Count))
		}
		return nil
	})
}

// readManifest adds up the manifest up to its head: first the snapshot, whose parts it reads, then the records.
func (v *Verifier) readManifest(ctx context.Context, shard shardid.Shard, r *Report) (sum Report, head uint64,
	err error) {
	m, err := manifest.Open(ctx, v.Client.JS(), shard)
	if err != nil {
		return sum, 0, err
	}
	snapshot, err := m.Snapshot(ctx)
	if err != nil {
		return sum, 0, err
	}
	var after manifest.Mark
	if snapshot != nil {
		after = manifest.Mark{Seq: snapshot.UpTo, ID: snapshot.UpToID}
		for _, run := range snapshot.Runs {
			if err := v.readRun(ctx, run); err != nil {
				v.bad(r, fmt.Errorf("the snapshot of the catalog of shard %s: %w", shard, err))
			}
			sum.Extents += run.Extents
			sum.Entries += run.Entries
		}
	}
	_, head = m.Last()
	err = manifest.Scan(ctx, v.Client.JS(), shard, after, m.Mark(), func(_, _ uint64, record manifest.Record) error {
		for _, s := range record.Segments {
			for _, e := range s.Extents {
				sum.Extents++
				sum.Entries += e.Count
			}
		}
		return nil
	})
	return sum, head, errors.Join(err, ctx.Err())
}

// readRun reads the parts of one run of a snapshot.
func (v *Verifier) readRun(ctx context.Context, run manifest.Run) error {
	var extents, entries uint64
	for row, err := range catalog.Run(ctx, run.Parts, v.getPart) {
		if err != nil {
			return err
		}
		l, err := row.Located()
		if err != nil {
			return err
		}
		extents++
		entries += l.Extent.Count
	}
	if extents != run.Extents || entries != run.Entries {
		return wrongf("records above %d to %d: it has %d extents with %d entries, and had %d with %d when it was taken",
			run.After, run.UpTo, extents, entries, run.Extents, run.Entries)
	}
	return nil
}

// getPart reads a part of a snapshot. One of another size is told from one that the bucket does not give.
func (v *Verifier) getPart(ctx context.Context, part extent.Segment) ([]byte, error) {
	object, err := v.Bucket.Object(ctx, part.Key)
	if err != nil {
		return nil, err
	}
	if size := uint64(object.Size()); size != part.Size {
		return nil, wrongf("object %s: it has %d bytes, and had %d", part.Key, size, part.Size)
	}
	return v.Bucket.Get(ctx, part)
}

// eachExtent pages over the catalog and checks on the way that the extents of a log follow each other.
func (v *Verifier) eachExtent(ctx context.Context, shard shardid.Shard, request wire.ExtentsRequest, r *Report,
	fn func(extent.Located) error) error {
	var last extent.Located
	for more := true; more; {
		reply, err := v.Client.Extents(ctx, shard, request)
		if err != nil {
			return err
		}
		for _, l := range reply.Extents {
			if l.Extent.Log == last.Extent.Log && l.Extent.First <= last.Extent.Last {
				v.bad(r, wrongf("log %s: the extent from %d in segment %s overlaps the one to %d in segment %s",
					l.Extent.Log, l.Extent.First, l.Segment.Key, last.Extent.Last, last.Segment.Key))
			}
			if err := fn(l); err != nil {
				return err
			}
			last = l
		}
		request.Log, request.After = last.Extent.Log, last.Extent.Last
		more = reply.More
	}
	return nil
}

// verifySegment reads a whole segment, checks that the extents are in it, and returns all that are; nil when it is bad.
func (v *Verifier) verifySegment(ctx context.Context, s extent.Segment, extents []extent.Extent,
	r *Report) ([]extent.Extent, error) {
	holds, err := v.readSegment(ctx, s, extents)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		v.bad(r, fmt.Errorf("segment %s: %w", s.Key, err))
	}
	if err == nil || !isUnread(err) {
		v.inARow = 0
	} else if v.inARow++; v.inARow >= mostUnread {
		return nil, fmt.Errorf("%w: %d objects one after the other could not be read, the last one since: %w", ErrUnread,
			v.inARow, err)
	}
	return holds, nil
}

func (v *Verifier) readSegment(ctx context.Context, s extent.Segment, extents []extent.Extent) ([]extent.Extent,
	error) {
	object, err := v.Bucket.Object(ctx, s.Key)
	if err != nil {
		return nil, err
	}
	if size := uint64(object.Size()); size != s.Size {
		return nil, errors.Join(wrongf("it has %d bytes, and had %d when it was committed", size, s.Size), object.Close())
	}
	opened, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	holds, err := opened.Verify(ctx, extents)
	return holds, errors.Join(err, opened.Close())
}

func (v *Verifier) progress(done, total uint64) {
	if v.Progress != nil {
		v.Progress(done, total)
	}
}

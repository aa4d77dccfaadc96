// Package verify compares an archive with the record of it: every live segment is read again, and what it holds is held
// against the tree, and the tree against the manifest.
//
// It changes nothing. Open store/segment for how one object is checked, and store/contents for how the order of the
// extents is.
package verify

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/contents"
	"dormouse/store/identity"
	"dormouse/store/manifest"
	"dormouse/store/segment"
	"dormouse/store/tree"
)

// Verifier compares the archive with the record of it. Its memory is that of one segment, and some 300 bytes for each
// segment of a shard.
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
	if log != "" && r.Extents == 0 && r.Bad+r.Unread == 0 {
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
	for _, harm := range []error{bucket.ErrNotFound, segment.ErrCorrupt, tree.ErrInvalid, contents.ErrOrder} {
		if errors.Is(err, harm) {
			return false
		}
	}
	return true
}

// verifyLog checks the segments that have a log, and the order of its extents.
func (v *Verifier) verifyLog(ctx context.Context, shard shardid.Shard, log string, r *Report) error {
	request := wire.SegmentsRequest{From: log, To: log + "\x00"}
	live, err := v.Client.Live(ctx, shard, request)
	if err != nil {
		return err
	}
	var last extent.Located
	for _, p := range live.Pieces {
		if !p.Segment.MayHold(log) {
			continue
		}
		holds, err := v.verifySegment(ctx, shard, p, r)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(holds, log, func(e extent.Extent, log string) int {
			return strings.Compare(e.Log, log)
		})
		if !found {
			continue
		}
		e := holds[i]
		if last.Extent.Last >= e.First {
			v.bad(r, wrongf("log %s: the extent from %d in segment %s overlaps the one to %d in segment %s", log, e.First,
				p.Segment.Object.Key, last.Extent.Last, last.Segment.Key))
		}
		last = extent.Located{Extent: e, Segment: p.Segment.Object}
		r.Segments++
		r.Extents++
		r.Entries += e.Count
	}
	return nil
}

// treeTries is how often the tree of an owner is compared with the manifest, which may move on meanwhile.
const treeTries = 5

// verifyShard checks that the tree is what the manifest says, that every segment in it holds what the tree has of it,
// and that the extents of each log follow each other.
func (v *Verifier) verifyShard(ctx context.Context, shard shardid.Shard, r *Report) error {
	pieces, err := v.compareTrees(ctx, shard, r)
	if err != nil {
		return err
	}
	bad := r.Bad + r.Unread
	for i, p := range pieces {
		holds, err := v.verifySegment(ctx, shard, p, r)
		if err != nil {
			return err
		}
		r.Segments++
		for _, e := range holds {
			r.Extents++
			r.Entries += e.Count
		}
		v.progress(uint64(i+1), uint64(len(pieces)))
	}
	if r.Bad+r.Unread > bad {
		return nil // the order would be that of what is left
	}
	for _, err := range contents.Walk(ctx, opener{v.Bucket}, pieces, "", "") {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, bucket.ErrNotFound): // merged since it was read
			return nil
		case err != nil:
			v.bad(r, fmt.Errorf("shard %s: %w", shard, err))
			return nil
		}
	}
	return nil
}

// compareTrees returns the live segments as the owner has them, after comparing them with the manifest.
func (v *Verifier) compareTrees(ctx context.Context, shard shardid.Shard, r *Report) ([]extent.Piece, error) {
	for try := 1; ; try++ {
		inManifest, head, err := v.readManifest(ctx, shard)
		if errors.Is(err, manifest.ErrGap) && try < treeTries { // a checkpoint was taken meanwhile
			continue
		}
		damaged := errors.Is(err, bucket.ErrNotFound) || errors.Is(err, tree.ErrInvalid) || errors.As(err, &wrong{})
		if err != nil && !damaged {
			return nil, err
		}
		live, err2 := v.Client.Live(ctx, shard, wire.SegmentsRequest{MinManifest: head})
		if err2 != nil {
			return nil, err2
		}
		pieces, version := live.Pieces, live.Version
		if damaged {
			v.bad(r, fmt.Errorf("the checkpoint of shard %s: %w", shard, err))
			return pieces, nil
		}
		want := slices.Collect(inManifest.Overlapping("", ""))
		same := reflect.DeepEqual(pieces, want) || len(pieces)+len(want) == 0
		if !same && version > head && try < treeTries {
			continue // the owner is further
		}
		if !same && version <= head {
			v.bad(r, wrongf("the owner of shard %s has %d live segments that are not the %d of the manifest: restart it", shard,
				len(pieces), len(want)))
		}
		return pieces, nil
	}
}

// readManifest makes the tree from the newest checkpoint and the records since, up to the last one.
func (v *Verifier) readManifest(ctx context.Context, shard shardid.Shard) (t tree.Tree, head uint64, err error) {
	m, err := manifest.Open(ctx, v.Client.JS(), shard)
	if err != nil {
		return t, 0, err
	}
	_, head = m.Last()
	at, err := m.Checkpoint(ctx)
	if err != nil {
		return t, head, err
	}
	if at != nil {
		data, err := v.getCheckpoint(ctx, at.Object)
		if err != nil {
			return t, head, err
		}
		if t, err = tree.Decode(data); err != nil {
			return t, head, fmt.Errorf("object %s: %w", at.Object.Key, err)
		}
	}
	err = manifest.Scan(ctx, v.Client.JS(), shard, at.Mark(), m.Mark(),
		func(seq, _ uint64, record manifest.Record) (err error) {
			t, _, err = record.Apply(t, seq)
			return err
		})
	return t, head, errors.Join(err, ctx.Err())
}

// getCheckpoint reads a checkpoint. One of another size is told from one that the bucket does not give.
func (v *Verifier) getCheckpoint(ctx context.Context, s extent.Segment) ([]byte, error) {
	object, err := v.Bucket.Object(ctx, s.Key)
	if err != nil {
		return nil, err
	}
	if size := uint64(object.Size()); size != s.Size {
		return nil, wrongf("object %s: it has %d bytes, and had %d", s.Key, size, s.Size)
	}
	return v.Bucket.Get(ctx, s)
}

// verifySegment reads a whole segment, checks that it holds what the tree has of it, and returns that; nil when it is
// bad, or when a merge has replaced it meanwhile.
func (v *Verifier) verifySegment(ctx context.Context, shard shardid.Shard, p extent.Piece, r *Report) ([]extent.Extent,
	error) {
	holds, err := v.readSegment(ctx, p.Segment)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, bucket.ErrNotFound) {
		live, lerr := v.isLive(ctx, shard, p)
		if lerr != nil || !live {
			return nil, lerr
		}
	}
	if err != nil {
		v.bad(r, fmt.Errorf("segment %s: %w", p.Segment.Object.Key, err))
	}
	if err == nil || !isUnread(err) {
		v.inARow = 0
	} else if v.inARow++; v.inARow >= mostUnread {
		return nil, fmt.Errorf("%w: %d objects one after the other could not be read, the last one since: %w", ErrUnread,
			v.inARow, err)
	}
	return holds, nil
}

// isLive reports whether a segment is live still.
func (v *Verifier) isLive(ctx context.Context, shard shardid.Shard, p extent.Piece) (bool, error) {
	live, err := v.Client.Live(ctx, shard, wire.SegmentsRequest{From: p.Segment.First, To: p.Segment.First + "\x00"})
	return slices.ContainsFunc(live.Pieces, func(now extent.Piece) bool {
		return now.Segment.Object == p.Segment.Object
	}), err
}

func (v *Verifier) readSegment(ctx context.Context, s extent.Summary) ([]extent.Extent, error) {
	object, err := v.Bucket.Object(ctx, s.Object.Key)
	if err != nil {
		return nil, err
	}
	if size := uint64(object.Size()); size != s.Object.Size {
		return nil, errors.Join(wrongf("it has %d bytes, and had %d when it was committed", size, s.Object.Size),
			object.Close())
	}
	opened, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	holds, err := opened.Verify(ctx, nil)
	if err = errors.Join(err, opened.Close()); err != nil {
		return nil, err
	}
	holds = slices.DeleteFunc(holds, func(e extent.Extent) bool { return !s.MayHold(e.Log) })
	if len(holds) == 0 {
		return nil, wrongf("it has nothing of what was committed of it")
	}
	have := extent.Summarize(s.Object, holds)
	have.Refused, have.Cut = s.Refused, s.Cut
	if !reflect.DeepEqual(have, s) {
		return nil, wrongf("it has %d logs from %s to %s with %d entries of %d bytes from %d to %d, and %d logs from %s to "+
			"%s with %d entries of %d bytes from %d to %d were committed of it", have.Logs, have.First, have.Last, have.Entries,
			have.Bytes, have.MinSeq, have.MaxSeq, s.Logs, s.First, s.Last, s.Entries, s.Bytes, s.MinSeq, s.MaxSeq)
	}
	return holds, nil
}

func (v *Verifier) progress(done, total uint64) {
	if v.Progress != nil {
		v.Progress(done, total)
	}
}

// opener opens the segments of a bucket, each anew.
type opener struct{ bucket *bucket.Bucket }

func (o opener) Open(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	object, err := o.bucket.Segment(s)
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(ctx, object)
	if err != nil {
		return nil, errors.Join(err, object.Close())
	}
	return r, nil
}

func (o opener) Done(_ extent.Segment, r *segment.Reader) error { return r.Close() }

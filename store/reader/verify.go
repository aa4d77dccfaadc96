package reader

import (
	"context"
	"errors"
	"fmt"

	"dormouse/internal/extent"
	"dormouse/internal/wire"
	"dormouse/store/archive"
	"dormouse/store/manifest"
)

// Verifier compares the archive with the record of it. Its memory is that of one segment and one page of extents,
// whatever the size of the archive.
type Verifier struct {
	Client   *Client
	Bucket   *archive.Bucket
	Bad      func(error)              // called for each thing that is wrong; it names object or log
	Progress func(done, total uint64) // manifest records or extents; may be nil
}

// Report sums up a verification.
type Report struct {
	Segments, Extents, Entries, Bad uint64
}

// Archive returns the URL of the archive as the owners know it.
func (c *Client) Archive(ctx context.Context) (string, error) {
	sources, err := c.Sources(ctx)
	if err != nil {
		return "", err
	}
	reply, err := c.Extents(ctx, sources[0].Shard, wire.ExtentsRequest{All: true})
	return reply.Archive, err
}

// Verify checks one log, or everything when log is empty. The error is what kept it from finishing; what is wrong with the
// archive goes to Bad and into the report.
func (v *Verifier) Verify(ctx context.Context, log string) (Report, error) {
	var r Report
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
		return r, fmt.Errorf("%w in the archive: %s", ErrNoLog, log)
	}
	return r, nil
}

func (v *Verifier) bad(r *Report, err error) {
	r.Bad++
	v.Bad(err)
}

// verifyLog checks the segments of one log and the order of its extents.
func (v *Verifier) verifyLog(ctx context.Context, shard wire.Shard, log string, r *Report) error {
	return v.eachExtent(ctx, shard, wire.ExtentsRequest{Log: log}, r, func(l extent.Located) error {
		return v.verifySegment(ctx, l.Segment, []extent.Extent{l.Extent}, r)
	})
}

// verifyShard checks every segment that the manifest names, then that the catalog is what the manifest says.
func (v *Verifier) verifyShard(ctx context.Context, shard wire.Shard, r *Report) error {
	head, _, err := v.Client.manifestHead(ctx, shard)
	if err != nil {
		return err
	}
	before := *r
	err = manifest.Scan(ctx, v.Client.js, shard, 0, head, func(seq, _ uint64, record manifest.Record) error {
		for _, s := range record.Segments {
			if err := v.verifySegment(ctx, s.Segment, s.Extents, r); err != nil {
				return err
			}
		}
		v.progress(seq, head)
		return nil
	})
	if err != nil {
		return err
	}
	inManifest := Report{Extents: r.Extents - before.Extents, Entries: r.Entries - before.Entries}
	var inCatalog Report
	err = v.eachExtent(ctx, shard, wire.ExtentsRequest{All: true, MinManifest: head}, r, func(l extent.Located) error {
		inCatalog.Extents++
		inCatalog.Entries += l.Extent.Count
		return nil
	})
	if err != nil {
		return err
	}
	// What was committed during the check is in the catalog only; less than the manifest is wrong at any time.
	after, _, err := v.Client.manifestHead(ctx, shard)
	if err != nil {
		return err
	}
	less := inCatalog.Extents < inManifest.Extents || inCatalog.Entries < inManifest.Entries
	if less || after == head && inCatalog != inManifest {
		v.bad(r, fmt.Errorf("the catalog of shard %s has %d extents with %d entries, the manifest %d with %d: delete the owner's data/pebble while it is stopped, and it is rebuilt",
			shard, inCatalog.Extents, inCatalog.Entries, inManifest.Extents, inManifest.Entries))
	}
	return nil
}

// eachExtent pages over the catalog and checks on the way that the extents of a log follow each other.
func (v *Verifier) eachExtent(ctx context.Context, shard wire.Shard, request wire.ExtentsRequest, r *Report, fn func(extent.Located) error) error {
	var last extent.Located
	for more := true; more; {
		reply, err := v.Client.Extents(ctx, shard, request)
		if err != nil {
			return err
		}
		for _, l := range reply.Extents {
			if l.Extent.Log == last.Extent.Log && l.Extent.First <= last.Extent.Last {
				v.bad(r, fmt.Errorf("log %s: the extent from %d in segment %s overlaps the one to %d in segment %s",
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

// verifySegment reads a whole segment and compares it with the extents that were committed of it.
func (v *Verifier) verifySegment(ctx context.Context, s extent.Segment, extents []extent.Extent, r *Report) error {
	r.Segments++
	r.Extents += uint64(len(extents))
	for _, e := range extents {
		r.Entries += e.Count
	}
	err := v.readSegment(ctx, s, extents)
	if err != nil && ctx.Err() == nil {
		v.bad(r, fmt.Errorf("segment %s: %w", s.Key, err))
	}
	return ctx.Err()
}

func (v *Verifier) readSegment(ctx context.Context, s extent.Segment, extents []extent.Extent) error {
	object, err := v.Bucket.Object(ctx, s.Key)
	if err != nil {
		return err
	}
	if size := uint64(object.Size()); size != s.Size {
		return errors.Join(fmt.Errorf("it has %d bytes, and had %d when it was committed", size, s.Size), object.Close())
	}
	opened, err := openObject(ctx, object)
	if err != nil {
		return err
	}
	return errors.Join(opened.Verify(ctx, extents), opened.Close())
}

func (v *Verifier) progress(done, total uint64) {
	if v.Progress != nil {
		v.Progress(done, total)
	}
}

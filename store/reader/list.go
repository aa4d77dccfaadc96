package reader

import (
	"context"
	"errors"
	"iter"
	"time"
	"unicode/utf8"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/contents"
	"dormouse/store/segment"
)

// Logs yields the logs of all shards whose LogID begins with prefix, ascending: what the segments' tables of contents
// have of each, and what is buffered. It streams, whatever there is, and ends at the first error.
func Logs(ctx context.Context, c *client.Client, open Archive, prefix string) iter.Seq2[wire.LogInfo, error] {
	return func(yield func(wire.LogInfo, error) bool) {
		sources, err := c.Sources(ctx)
		if err != nil {
			yield(wire.LogInfo{}, err)
			return
		}
		var nexts []func() (wire.LogInfo, error, bool)
		for _, s := range sources {
			l := &lister{client: c, open: &readers{archive: open}}
			next, stop := iter.Pull2(l.logs(ctx, s.Shard, prefix))
			defer stop()
			nexts = append(nexts, next)
		}
		ascending(nexts, yield)
	}
}

// ascending yields what several lists have, each of which is ascending, in order.
func ascending(nexts []func() (wire.LogInfo, error, bool), yield func(wire.LogInfo, error) bool) {
	heads := make([]*wire.LogInfo, len(nexts))
	take := func(i int) bool {
		info, err, ok := nexts[i]()
		if err != nil {
			yield(info, err)
			return false
		}
		if heads[i] = nil; ok {
			heads[i] = &info
		}
		return true
	}
	for i := range nexts {
		if !take(i) {
			return
		}
	}
	for {
		least := -1
		for i, h := range heads {
			if h != nil && (least < 0 || h.Log < heads[least].Log) {
				least = i
			}
		}
		if least < 0 || !yield(*heads[least], nil) || !take(least) {
			return
		}
	}
}

// Log returns what a shard knows of one log, if it knows it. An entry that its owner has not taken in yet is waited
// for.
func Log(ctx context.Context, c *client.Client, open Archive, source topology.Source, log string) (info wire.LogInfo,
	ok bool, err error) {
	l := &lister{client: c, open: &readers{archive: open}}
	defer func() { err = errors.Join(err, l.open.close()) }()
	for began := time.Now(); ; {
		if info, ok, err = l.log(ctx, source.Shard, log); ok || err != nil || time.Since(began) > client.Patience/3 {
			return info, ok, err
		}
		if in, err := inStream(ctx, c, source, log); err != nil || !in {
			return info, false, err
		}
		if err := sleep(ctx, maxLagPause); err != nil {
			return info, false, err
		}
	}
}

// log returns what the shard's owner and the archive have of a log.
func (l *lister) log(ctx context.Context, shard shardid.Shard, log string) (info wire.LogInfo, ok bool, err error) {
	buffered, _, err := l.buffered(ctx, shard, log)
	if err != nil {
		return info, false, err
	}
	info, archived, err := l.archived(ctx, shard, log)
	if err != nil {
		return info, false, err
	}
	if !archived && buffered.Buffered.Entries == 0 {
		return info, false, nil
	}
	info, err = l.join(ctx, shard, info, buffered)
	return info, err == nil, err
}

// lister lists the logs of one shard.
type lister struct {
	client *client.Client
	open   *readers
}

// logs yields the shard's logs that begin with prefix, ascending.
//
// For each page it asks for the buffered logs first, and then for the segments of the same range: what is committed in
// between is in both then, and never in neither.
func (l *lister) logs(ctx context.Context, shard shardid.Shard, prefix string) iter.Seq2[wire.LogInfo, error] {
	return func(yield func(wire.LogInfo, error) bool) {
		p := &page{lister: l, shard: shard, from: prefix, yield: yield}
		err := p.all(ctx, prefix)
		if cerr := l.open.close(); err == nil {
			err = cerr
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(wire.LogInfo{}, err)
		}
	}
}

// errStopped ends a list that nobody goes on with.
var errStopped = errors.New("the list was left")

// page is how far a list is.
type page struct {
	*lister
	shard    shardid.Shard
	from     string         // all logs before it were yielded
	buffered []wire.LogInfo // those that were not
	yield    func(wire.LogInfo, error) bool
}

func (p *page) all(ctx context.Context, prefix string) error {
	request := wire.ListRequest{Prefix: prefix}
	for more := true; more; {
		reply, err := p.client.List(ctx, p.shard, request)
		if err != nil {
			return err
		}
		p.open.named = reply.Archive
		p.buffered = reply.Logs
		to := After(prefix)
		if more = reply.More && len(reply.Logs) > 0; more {
			request.After = reply.Logs[len(reply.Logs)-1].Log
			to = request.After + "\x00"
		}
		if err := p.archivedTo(ctx, to); err != nil {
			return err
		}
		if err := p.bufferedTo(to); err != nil {
			return err
		}
		p.from = to
	}
	return nil
}

// After returns the least string that sorts after all that begin with a prefix, empty if there is none. It is valid
// UTF-8, as the prefix is.
func After(prefix string) string {
	for prefix != "" {
		last, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		switch last {
		case utf8.MaxRune: // nothing is between it and the next of what is before it
		case 0xd7ff: // surrogates are none
			return prefix + "\ue000"
		default:
			return prefix + string(last+1)
		}
	}
	return ""
}

// bufferedTo yields the logs before a LogID that are only buffered; all of them if it is empty.
func (p *page) bufferedTo(log string) error {
	for len(p.buffered) > 0 && (log == "" || p.buffered[0].Log < log) {
		next := p.buffered[0]
		p.buffered = p.buffered[1:]
		if !p.yield(next, nil) {
			return errStopped
		}
	}
	return nil
}

// archivedTo yields the logs before a LogID that are archived, and those between them that are only buffered.
func (p *page) archivedTo(ctx context.Context, to string) error {
	var gone missing
	for {
		err := p.walk(ctx, to)
		if !errors.Is(err, bucket.ErrNotFound) {
			return err
		}
		if err := gone.again(ctx, err); err != nil {
			return err
		}
	}
}

// walk goes through the tables of contents from where the list is.
func (p *page) walk(ctx context.Context, to string) error {
	live, err := p.client.Live(ctx, p.shard, wire.SegmentsRequest{From: p.from, To: to})
	if err != nil {
		return err
	}
	for log, err := range contents.Walk(ctx, p.open, live.Pieces, p.from, to) {
		if err == nil && len(live.Cuts) > 0 {
			log.Extents, err = contents.Uncut(ctx, p.open, live.Cuts, log.Extents)
		}
		if err != nil {
			return err
		}
		if len(log.Extents) == 0 {
			continue
		}
		if err := p.bufferedTo(log.Log); err != nil {
			return err
		}
		info := sumUp(log)
		if len(p.buffered) > 0 && p.buffered[0].Log == log.Log {
			buffered := p.buffered[0]
			p.buffered = p.buffered[1:]
			if info, err = p.join(ctx, p.shard, info, buffered); err != nil {
				return err
			}
		}
		if !p.yield(info, nil) {
			return errStopped
		}
		p.from = log.Log + "\x00"
	}
	return nil
}

// sumUp sums up the extents of a log.
func sumUp(log contents.Log) wire.LogInfo {
	info := wire.LogInfo{Log: log.Log, Extents: uint64(len(log.Extents))}
	for _, l := range log.Extents {
		e := l.Extent
		info.Archived = info.Archived.Join(wire.Part{Entries: e.Count, Bytes: e.Bytes, First: e.First, Last: e.Last,
			MinTime: e.MinTime, MaxTime: e.MaxTime})
	}
	return info
}

// join adds the buffered part of a log, of which some may have been archived since it was asked for.
func (l *lister) join(ctx context.Context, shard shardid.Shard, info, buffered wire.LogInfo) (wire.LogInfo, error) {
	last := info.Archived.Last
	if info.Log = buffered.Log; buffered.Buffered.First <= last && last < buffered.Buffered.Last {
		var err error
		if buffered, _, err = l.buffered(ctx, shard, info.Log); err != nil {
			return info, err
		}
	}
	if buffered.Buffered.First > last {
		info.Buffered = buffered.Buffered
	}
	return info, nil
}

// buffered asks for the buffered part of one log.
func (l *lister) buffered(ctx context.Context, shard shardid.Shard, log string) (info wire.LogInfo, ok bool,
	err error) {
	reply, err := l.client.List(ctx, shard, wire.ListRequest{Prefix: log, Limit: 1})
	l.open.named = reply.Archive
	// the log itself is the first that has it as its prefix
	if err != nil || len(reply.Logs) == 0 || reply.Logs[0].Log != log {
		return wire.LogInfo{Log: log}, false, err
	}
	return reply.Logs[0], true, nil
}

// archived sums up the archived part of one log.
func (l *lister) archived(ctx context.Context, shard shardid.Shard, log string) (info wire.LogInfo, ok bool,
	err error) {
	p := &page{lister: l, shard: shard, from: log, yield: func(i wire.LogInfo, _ error) bool {
		info, ok = i, true
		return true
	}}
	return info, ok, p.archivedTo(ctx, log+"\x00")
}

// idleReaders bounds the segments that a list keeps open for its next page. Each has the end of the segment in memory,
// 64 KiB as a rule.
const idleReaders = 64

// readers opens segments, and keeps some for the next time.
type readers struct {
	archive Archive
	named   string  // the bucket as the owner names it
	bucket  *Bucket // opened when it is needed
	idle    map[string]*segment.Reader
}

// Open implements contents.Opener.
func (r *readers) Open(ctx context.Context, s extent.Segment) (*segment.Reader, error) {
	if kept := r.idle[s.Key]; kept != nil {
		delete(r.idle, s.Key)
		return kept, nil
	}
	if r.bucket == nil {
		var err error
		if r.bucket, err = r.archive(ctx, r.named); err != nil {
			return nil, err
		}
	}
	return r.bucket.reader(ctx, s)
}

// Done implements contents.Opener.
func (r *readers) Done(s extent.Segment, reader *segment.Reader) error {
	if len(r.idle) >= idleReaders {
		return reader.Close()
	}
	if r.idle == nil {
		r.idle = make(map[string]*segment.Reader)
	}
	r.idle[s.Key] = reader
	return nil
}

// close closes what was kept.
func (r *readers) close() (err error) {
	for _, reader := range r.idle {
		err = errors.Join(err, reader.Close())
	}
	r.idle = nil
	return err
}

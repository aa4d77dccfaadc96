// Package rebuild makes a system out of a bucket whose JetStream was lost: of each shard a tree with all that was
// committed, a manifest that begins with it, and source streams whose sequences go on above.
//
// It deletes nothing. What it puts before it is killed are objects like those that a worker puts and does not commit,
// so that it can be run again at any time. The records come behind all that they name, the system's identity behind the
// records, and the source streams last: until then no process serves the system.
//
// Open shard.go for what is looked at, plan.go for what is kept of a checkpoint and what comes on top, write.go for
// what has to be written anew; store/alone for how a bucket is read without it.
package rebuild

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/extent"
	"dormouse/internal/shardid"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/alone"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/identity"
	"dormouse/store/manifest"
)

// Owner is who appended the records of a rebuilt system, as they say.
const Owner = "dormouse rebuild"

// ErrRefused is wrapped when the system cannot be rebuilt as things are: somebody has to decide.
var ErrRefused = errors.New("refused")

// Bucket is what the trees are made of.
type Bucket interface {
	List(ctx context.Context, prefix string) iter.Seq2[extent.Segment, error]
	Get(ctx context.Context, s extent.Segment) ([]byte, error)
	Segment(s extent.Segment) (*bucket.Object, error)
	Put(ctx context.Context, key string, data []byte) error
}

// Tell hears what is done. What is nil is not told.
type Tell struct {
	Step     func(what string)                     // what begins
	Progress func(what string, done, total uint64) // how far a long step is; a total of 0 is unknown
	Bad      func(problem error)                   // what is missing, or damaged
}

func (t Tell) step(format string, args ...any) {
	if t.Step != nil {
		t.Step(fmt.Sprintf(format, args...))
	}
}

func (t Tell) progress(what string, done, total uint64) {
	if t.Progress != nil {
		t.Progress(what, done, total)
	}
}

// Config is what a rebuild needs.
type Config struct {
	topology.Config // of the streams that are made
	JS              jetstream.JetStream
	Bucket          *bucket.Bucket
	Quiet           time.Duration // for so long nobody must have put an object
	Despite         bool          // go on without what is missing or damaged
	Tell            Tell
}

// Shard is what became of one.
type Shard struct {
	ID                shardid.Shard
	Segments, Entries uint64 // that are live, those included that are cut
	Taken, Written    int    // segments that came on top of the checkpoint's, as they are and anew
	Other             uint64 // entries that were left out for another one of their log and sequence
	Next              uint64 // sequence at which its source stream begins
	Checkpoint        string // key of the object with its tree
}

// room is how far the sequences of the new streams begin above all that the bucket knows: what was published last was
// not archived, but somebody may have read it.
const room = 1 << 16

// Rebuild makes a system out of a bucket. The steps, and what a crash after each leaves:
//
//  1. looked at the bucket and at JetStream, and compared what is in the bucket: nothing;
//  2. segments that had to be written anew are put: objects that nobody refers to;
//  3. the trees are put, as checkpoints: who reads the bucket alone reads by them, and the next try begins with them; a
//     bucket that has lost its identity gets one;
//  4. the manifest stream is made, with nothing in it that counts;
//  5. a claim and a checkpoint's record of each shard, one shard after the other: the next try goes on behind them;
//  6. the system's identity is recorded: from here on a process can serve, and makes what is missing;
//  7. the other streams are made.
//
// The error wraps ErrRefused, topology.ErrRefused or identity.ErrRefused when somebody has to decide, and names what.
func Rebuild(ctx context.Context, cfg Config) ([]Shard, error) {
	return (&rebuilding{Config: cfg, before: func(int) error { return ctx.Err() }}).run(ctx)
}

// rebuilding is one Rebuild under way.
type rebuilding struct {
	Config
	before func(step int) error // tests end it there

	shards  []*shard
	sources []topology.Source
	layout  int // shards that tenants are spread over; 0: as the source streams are
	done    map[shardid.Shard]bool
	built   map[shardid.Shard]Built
	begins  map[shardid.Shard]uint64 // where source streams begin that are there and can stay as they are
	seen    map[string]bool          // objects that were there at the first look
	ours    map[string]bool          // objects that were put by this one
	told    map[string]bool          // problems that were told
}

func (r *rebuilding) run(ctx context.Context) ([]Shard, error) {
	if r.Bucket.InMemory() {
		return nil, fmt.Errorf("%w: what is in memory (mem://) ended with its process", ErrRefused)
	}
	r.built, r.begins = make(map[shardid.Shard]Built), make(map[shardid.Shard]uint64)
	r.seen, r.ours, r.told = make(map[string]bool), make(map[string]bool), make(map[string]bool)
	var report []Shard
	for i, step := range []func(context.Context) error{
		r.look, r.build, func(ctx context.Context) (err error) { report, err = r.putTrees(ctx); return err },
		r.beginManifest, func(ctx context.Context) error { return r.record(ctx, report) },
		func(ctx context.Context) error { return identity.Restore(ctx, r.JS, r.Bucket) },
		r.makeStreams,
	} {
		if err := r.before(i + 1); err != nil {
			return nil, err
		}
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// look looks at the bucket and at JetStream, and refuses what cannot be rebuilt.
func (r *rebuilding) look(ctx context.Context) error {
	whose, err := identity.Restorable(ctx, r.JS, r.Bucket)
	anonymous := errors.Is(err, identity.ErrMissing)
	if err != nil && !anonymous {
		return err
	}
	if err := r.lookAtJetStream(ctx, whose); err != nil {
		return err
	}
	if err := r.awaitQuiet(ctx); err != nil {
		return err
	}
	r.Tell.step("looking at what is in %s", r.Bucket.URL())
	found, err := alone.Survey(ctx, r.Bucket)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%w: %s has no segment of any shard: is it the right URL?", alone.ErrEmpty, r.Bucket.URL())
	}
	var problems []error
	if anonymous {
		problems = append(problems, fmt.Errorf("object %s is missing: nothing says whose archive this is", identity.Key))
	}
	for _, f := range found {
		s := &shard{Shard: f, bucket: putter{r.Bucket, r.ours}, tell: r.Tell, damaged: make(map[string]error)}
		if err := s.look(ctx); err != nil {
			return err
		}
		problems = append(problems, s.problems()...)
		r.shards = append(r.shards, s)
	}
	if err := r.settle(problems); err != nil {
		return err
	}
	if err := r.arrange(); err != nil {
		return err
	}
	return r.lookAtSources(ctx)
}

// settle tells what is missing or damaged and was not told before, and refuses to go on without it unless somebody has
// decided so.
func (r *rebuilding) settle(problems []error) error {
	news := 0
	for _, p := range problems {
		if r.told[p.Error()] {
			continue
		}
		r.told[p.Error()] = true
		if news++; r.Tell.Bad != nil {
			r.Tell.Bad(p)
		}
	}
	if news > 0 && !r.Despite {
		return fmt.Errorf("%w: %d objects are missing or damaged, see above: restore them (an older version, a copy), or "+
			"go on without them for good (--despite-damage)", ErrRefused, news)
	}
	return nil
}

// putter notes what is put.
type putter struct {
	Bucket
	ours map[string]bool
}

// Put implements Bucket.
func (p putter) Put(ctx context.Context, key string, data []byte) error {
	p.ours[key] = true
	return p.Bucket.Put(ctx, key, data)
}

// lookAtJetStream refuses a system that runs, one that ever committed anything, and one that is rebuilt. whose says
// that it is known already whose the bucket is.
func (r *rebuilding) lookAtJetStream(ctx context.Context, whose bool) error {
	alive, err := client.New(r.JS.Conn(), r.JS).Alive(ctx)
	if err != nil {
		return err
	}
	if len(alive) > 0 {
		return fmt.Errorf("%w: processes of this system run (%s): stop them first, and wait for their leases to end",
			ErrRefused, strings.Join(alive, ", "))
	}
	if r.sources, err = topology.Sources(ctx, r.JS); err != nil {
		return err
	}
	shards, err := topology.Manifests(ctx, r.JS)
	if err != nil {
		return err
	}
	complete := whose && len(shards) > 0
	r.done = make(map[shardid.Shard]bool)
	for _, id := range shards {
		m, err := manifest.Open(ctx, r.JS, id)
		if err != nil {
			return err
		}
		last, seq := m.Last()
		if seq > 0 && last.Owner != Owner {
			return fmt.Errorf("%w: the manifest is not empty: shard %s has record %d of %s, by %s. A system whose manifest is "+
				"there needs no rebuild: start dormouse serve", ErrRefused, id, seq, last.Time.Format(time.RFC3339), last.Owner)
		}
		r.done[id] = last.Kind == manifest.TakeCheckpoint
		begins, err := r.begin(ctx, id, last.Source.Seq+1)
		if err != nil {
			return err
		}
		complete = complete && r.done[id] && begins > 0
	}
	if complete {
		return fmt.Errorf("%w: the manifest is not empty: this system was rebuilt from %s already. Start dormouse serve",
			ErrRefused, r.Bucket.URL())
	}
	return nil
}

// begin returns where the source stream of a shard begins that is there and can stay as it is; 0 without one.
func (r *rebuilding) begin(ctx context.Context, id shardid.Shard, least uint64) (uint64, error) {
	i := slices.IndexFunc(r.sources, func(source topology.Source) bool { return source.Shard == id })
	if i < 0 {
		return 0, nil
	}
	return topology.Begins(ctx, r.JS, r.sources[i], least)
}

// awaitQuiet waits until nobody has put an object for a while. One that comes meanwhile is somebody's who lives.
func (r *rebuilding) awaitQuiet(ctx context.Context) error {
	newest, at, err := r.newest(ctx)
	if err != nil {
		return err
	}
	left := r.Quiet - time.Since(at)
	if at.IsZero() || left <= 0 {
		return nil
	}
	r.Tell.step("object %s was put %s ago: waiting whether another one comes", newest, time.Since(at).Round(time.Second))
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(left, r.Quiet)): // a name of the future is a clock that is wrong
	}
	again, at, err := r.newest(ctx)
	if err != nil {
		return err
	}
	if again != newest {
		return r.inUse(again, at)
	}
	return nil
}

func (r *rebuilding) inUse(key string, at time.Time) error {
	return fmt.Errorf("%w: somebody writes to %s: object %s was put at %s. Stop the processes that archive there, with "+
		"whichever NATS", ErrRefused, r.Bucket.URL(), key, at.Format(time.RFC3339))
}

// newest returns the object that was named last, and notes all as seen.
func (r *rebuilding) newest(ctx context.Context) (key string, at time.Time, err error) {
	for o, err := range r.Bucket.List(ctx, "") {
		if err != nil {
			return "", at, err
		}
		if r.seen[o.Key] = true; alone.Named(o.Key).After(at) {
			key, at = o.Key, alone.Named(o.Key)
		}
	}
	return key, at, nil
}

// lookAtSources refuses source streams that cannot go on above the archive.
func (r *rebuilding) lookAtSources(ctx context.Context) (err error) {
	for _, s := range r.shards {
		if r.begins[s.ID], err = r.begin(ctx, s.ID, s.highest+1); err != nil {
			return err
		}
	}
	return nil
}

// build makes the trees of the shards that have no record yet.
func (r *rebuilding) build(ctx context.Context) error {
	for _, s := range r.shards {
		if r.done[s.ID] {
			continue
		}
		r.Tell.step("shard %s: %d objects besides what its checkpoint has", s.ID, len(s.Since))
		b, err := s.build(ctx)
		if err != nil {
			return err
		}
		if err := r.settle(s.problems()); err != nil { // what it met has been added
			return err
		}
		r.built[s.ID] = b
	}
	for o, err := range r.Bucket.List(ctx, "") {
		if err != nil {
			return err
		}
		if at := alone.Named(o.Key); !r.seen[o.Key] && !r.ours[o.Key] && !at.IsZero() {
			return r.inUse(o.Key, at)
		}
	}
	return nil
}

// putTrees puts the trees into the bucket, in a checkpoint of each shard.
func (r *rebuilding) putTrees(ctx context.Context) (report []Shard, err error) {
	if err := identity.Keep(ctx, r.Bucket); err != nil {
		return nil, err
	}
	for _, s := range r.shards {
		b, ok := r.built[s.ID]
		if !ok {
			continue
		}
		r.Tell.step("shard %s: putting its checkpoint", s.ID)
		data, err := b.Tree.Encode()
		if err != nil {
			return nil, err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		one := Shard{ID: s.ID, Taken: b.Taken, Written: b.Written, Other: b.Other, Next: r.begins[s.ID],
			Checkpoint: s.ID.CheckpointKey(id.String())}
		if one.Next == 0 {
			one.Next = b.Highest + 1 + room
		}
		one.Segments, _ = b.Tree.Segments()
		for _, run := range b.Tree.Runs() {
			for _, seg := range run.Segments {
				one.Entries += seg.Entries
			}
		}
		if err := r.Bucket.Put(ctx, one.Checkpoint, data); err != nil {
			return nil, err
		}
		s.size = uint64(len(data))
		report = append(report, one)
	}
	return report, nil
}

// beginManifest makes the manifest stream begin above the records that the trees know of.
func (r *rebuilding) beginManifest(ctx context.Context) error {
	cfg := r.Config.Config
	for _, b := range r.built {
		cfg.FirstRecord = max(cfg.FirstRecord, b.Tree.Record()+1)
	}
	r.Tell.step("making the manifest")
	stream, err := r.JS.Stream(ctx, wire.ManifestStream)
	if err == nil && stream.CachedInfo().State.LastSeq+1 >= cfg.FirstRecord {
		return topology.BeginManifest(ctx, r.JS, cfg) // a try before has left room
	}
	if cfg.FirstRecord > 0 {
		cfg.FirstRecord += room
	}
	return topology.BeginManifest(ctx, r.JS, cfg)
}

// record appends the records of shards: a claim, whose sequences are those of a stream that is gone, and the
// checkpoint.
func (r *rebuilding) record(ctx context.Context, report []Shard) error {
	for i, one := range report {
		r.Tell.step("shard %s: recording its checkpoint in the manifest", one.ID)
		if err := r.before(recordSteps + 2*i); err != nil {
			return err
		}
		m, err := manifest.Open(ctx, r.JS, one.ID)
		if err != nil {
			return err
		}
		last, seq := m.Last()
		if seq > 0 && last.Owner != Owner {
			return fmt.Errorf("%w: shard %s is owned by %s by now", ErrRefused, one.ID, last.Owner)
		}
		claim := manifest.Record{Kind: manifest.Claim, Epoch: last.Epoch + 1, Owner: Owner,
			Floor: r.built[one.ID].Highest, Source: manifest.Source{Seq: one.Next - 1}}
		if seq, err = m.Append(ctx, claim); err != nil {
			return err
		}
		if err := r.before(recordSteps + 2*i + 1); err != nil {
			return err
		}
		appended, _ := m.Last()
		size := r.sizeOf(one.ID)
		claim.Kind = manifest.TakeCheckpoint
		claim.Checkpoint = &manifest.Checkpoint{UpTo: seq, UpToID: appended.ID,
			Object: extent.Segment{Key: one.Checkpoint, Size: size}}
		if _, err := m.Append(ctx, claim); err != nil {
			return err
		}
	}
	return nil
}

// recordSteps numbers the steps of record for tests, from here on.
const recordSteps = 100

func (r *rebuilding) sizeOf(id shardid.Shard) uint64 {
	for _, s := range r.shards {
		if s.ID == id {
			return s.size
		}
	}
	return 0
}

// makeStreams makes the streams that are missing. Source streams begin above what the manifest says of the ones before.
func (r *rebuilding) makeStreams(ctx context.Context) error {
	r.Tell.step("making the streams")
	for _, source := range r.sources {
		if !slices.ContainsFunc(r.shards, func(s *shard) bool { return s.ID == source.Shard }) {
			continue
		}
		m, err := manifest.Open(ctx, r.JS, source.Shard)
		if err != nil {
			return err
		}
		last, _ := m.Last()
		first := last.Source.Seq + 1
		begins, err := topology.Begins(ctx, r.JS, source, first)
		if err == nil && begins == 0 {
			err = topology.Raise(ctx, r.JS, source, first)
		}
		if err != nil {
			return err
		}
	}
	cfg := r.Config.Config
	cfg.Shards = r.layout
	_, err := topology.Ensure(ctx, r.JS, cfg)
	return err
}

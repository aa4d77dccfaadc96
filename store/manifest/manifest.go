package manifest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/retry"
	"dormouse/internal/shardid"
	"dormouse/internal/streamreader"
	"dormouse/internal/wire"
)

// HeaderEpoch carries a record's epoch, so that a reader learns the current owner's subjects without decoding records.
const HeaderEpoch = "Dormouse-Epoch"

// ErrFenced means that another owner has appended: the caller no longer owns the shard and must step down.
var ErrFenced = errors.New("another owner has claimed the shard")

// appendTimeout bounds one try of an append; what follows a time-out is a look at what really happened.
const appendTimeout = 5 * time.Second

// Manifest is one shard's manifest as one owner sees it. It is for one goroutine at a time.
type Manifest struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	shard  shardid.Shard
	end    uint64 // sequence of the subject's last message; what the next append expects
	endID  string // that message's ID
	last   uint64 // sequence of the last record; below end when what follows it counts for nothing
	record Record // the last record

	// Failing is called, if it is not nil, with what each try of an append failed with that is tried again.
	Failing func(error)
}

// Open reads the shard's last record. The manifest stream must exist.
func Open(ctx context.Context, js jetstream.JetStream, shard shardid.Shard) (*Manifest, error) {
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest stream %s: %w", wire.ManifestStream, err)
	}
	m := &Manifest{js: js, stream: stream, shard: shard}
	if m.record, m.last, m.end, err = m.latest(ctx); err != nil {
		return nil, err
	}
	if m.last == m.end {
		m.endID = m.record.ID
	}
	return m, m.walkBack(ctx)
}

// walkBack finds the last record that counts, beginning with the last one. One that follows a message which a power
// failure took counts for nothing: an owner that lived through that appended it, and stepped down.
func (m *Manifest) walkBack(ctx context.Context) error {
	for {
		before, id := m.record.before()
		presence, err := m.Has(ctx, before, id)
		if err != nil || presence != Other {
			return err
		}
		if m.record, m.last, err = m.newest(ctx, before); err != nil {
			return err
		}
	}
}

// Created returns when the manifest stream was made: another stream is another history.
func (m *Manifest) Created() time.Time { return m.stream.CachedInfo().Created }

// Opened returns when Open looked at the stream, by the clock of the stream's server.
func (m *Manifest) Opened() time.Time { return m.stream.CachedInfo().TimeStamp }

// Last returns the last record and its sequence in the manifest stream; sequence 0 means that there is none.
func (m *Manifest) Last() (Record, uint64) { return m.record, m.last }

// Before returns the record that r follows; ok is false when it is not there, or there is none. Others may use m
// meanwhile.
func (m *Manifest) Before(ctx context.Context, r Record) (before Record, ok bool, err error) {
	if r.Prev == 0 {
		return before, false, nil
	}
	before, err = m.get(ctx, r.Prev)
	if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, errOtherShard) {
		return before, false, nil
	}
	return before, err == nil && before.ID == r.PrevID, err
}

// Mark names the last record.
func (m *Manifest) Mark() Mark { return Mark{m.last, m.record.ID} }

// Presence is what the manifest has at a sequence.
type Presence int

// What Has returns.
const (
	Gone  Presence = iota // nothing: a checkpoint has it, or had
	Same                  // that record
	Other                 // another record: a power failure took that one
)

// Has tells whether the record at seq is the one with that ID.
func (m *Manifest) Has(ctx context.Context, seq uint64, id string) (Presence, error) {
	if seq == 0 { // before the first record
		return Same, nil
	}
	r, err := m.get(ctx, seq)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return Gone, nil
	case errors.Is(err, errOtherShard):
		return Other, nil
	case err != nil:
		return Gone, err
	case r.ID != id:
		return Other, nil
	}
	return Same, nil
}

var errOtherShard = errors.New("it is another shard's")

// get reads the record at a sequence.
func (m *Manifest) get(ctx context.Context, seq uint64) (Record, error) {
	msg, err := jsapi.Get(ctx, m.js, wire.ManifestStream, seq)
	if err == nil && msg.Subject != wire.ManifestSubject(m.shard) {
		err = errOtherShard
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading manifest record %d of shard %s: %w", seq, m.shard, err)
	}
	return m.recordOf(msg)
}

// recordOf reads the record that a message of the shard's subject is; one without an ID for a message that is none.
func (m *Manifest) recordOf(msg jsapi.Message) (Record, error) {
	if !isRecord(msg) {
		return Record{}, nil
	}
	r, err := Decode(msg.Data)
	if err != nil {
		return r, fmt.Errorf("manifest record %d of shard %s: %w", msg.Sequence, m.shard, err)
	}
	r.Stored = msg.Time
	return r, nil
}

// isRecord reports whether an owner appended the message. The stream takes whatever somebody with rights to it
// publishes, and deletes nothing: what has no epoch counts for nothing.
func isRecord(msg jsapi.Message) bool {
	headers, err := msg.Headers()
	return err == nil && headers.Get(HeaderEpoch) != ""
}

// lastRecord returns the message of the shard's last record, and the sequence of the last message of its subject.
func lastRecord(ctx context.Context, js jetstream.JetStream, shard shardid.Shard) (jsapi.Message, uint64, error) {
	msg, end, err := jsapi.GetLastThat(ctx, js, wire.ManifestStream, wire.ManifestSubject(shard), isRecord)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return jsapi.Message{}, end, nil
	}
	if err != nil {
		err = fmt.Errorf("reading the last manifest record of shard %s: %w", shard, err)
	}
	return msg, end, err
}

// Head returns the sequence and the epoch of the shard's last record, as the stream's leader has it; 0 and 0 without
// any. It does not decode the record.
func Head(ctx context.Context, js jetstream.JetStream, shard shardid.Shard) (seq, epoch uint64, err error) {
	msg, _, err := lastRecord(ctx, js, shard)
	if err != nil || msg.Sequence == 0 {
		return 0, 0, err
	}
	headers, err := msg.Headers()
	if err == nil {
		epoch, err = strconv.ParseUint(headers.Get(HeaderEpoch), 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("manifest record %d of shard %s: header %s: %w", msg.Sequence, shard, HeaderEpoch, err)
	}
	return msg.Sequence, epoch, nil
}

// latest returns the last record, its sequence, and that of the last message. It asks the stream's leader: direct reads
// from replicas may be stale, and the stream is made without them.
func (m *Manifest) latest(ctx context.Context) (r Record, seq, end uint64, err error) {
	msg, end, err := lastRecord(ctx, m.js, m.shard)
	if err == nil && msg.Sequence > 0 {
		r, err = m.recordOf(msg)
	}
	return r, msg.Sequence, end, err
}

// newest returns the last record at or below a sequence, and its sequence; 0 without one.
func (m *Manifest) newest(ctx context.Context, from uint64) (Record, uint64, error) {
	msg, err := jsapi.GetBack(ctx, m.js, wire.ManifestStream, wire.ManifestSubject(m.shard), from, isRecord)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, 0, nil
	}
	if err != nil {
		return Record{}, 0, fmt.Errorf("reading manifest records of shard %s up to %d: %w", m.shard, from, err)
	}
	r, err := m.recordOf(msg)
	return r, msg.Sequence, err
}

// Append appends r, whose ID, Time and links to other records it sets, if nobody else has appended since the last
// record that m knows, and returns its sequence. An append whose answer is lost is looked up by its ID and tried again,
// under another ID, until it is known to have happened or ctx ends. ErrFenced means that the caller owns the shard no
// more. As a rule the record is not in the manifest then; it is there if its answer was lost and another owner has
// claimed since, which then knows of it.
//
// Comparing sequences is not enough when the servers have lost their last seconds in a power failure and another owner
// has used those sequences. So the message that the new one follows is looked at again afterwards. If it is another
// one, the new one counts for nothing (see Open and Scan), and the error is ErrFenced.
func (m *Manifest) Append(ctx context.Context, r Record) (uint64, error) {
	r.Time = time.Now().UTC()
	r.Prev, r.PrevID = m.last, m.record.ID
	if m.end != m.last {
		r.End, r.EndID = m.end, m.endID
	}
	if r.CheckpointSeq = m.record.CheckpointSeq; m.record.Kind == TakeCheckpoint {
		r.CheckpointSeq = m.last
	}
	// An ID for each try: a power failure may take the one that succeeded, and what others have appended after it must not
	// take the next one for it.
	id, tries := uuid.NewString(), 0
	seq, err := backoff.Retry(ctx, func() (uint64, error) {
		tries++
		r.ID = id + "." + strconv.Itoa(tries)
		return m.try(ctx, &r, id)
	}, backoff.WithBackOff(retry.Steady()), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			if m.Failing != nil {
				m.Failing(err)
			}
		}))
	if err == nil {
		err = m.confirm(ctx, r)
	}
	if err != nil {
		return 0, err
	}
	m.end, m.endID, m.last, m.record = seq, r.ID, seq, r
	return seq, nil
}

// confirm returns ErrFenced when the message that r follows is not there any more.
func (m *Manifest) confirm(ctx context.Context, r Record) error {
	before, id := r.before()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(ctx, appendTimeout)
		defer cancel()
		presence, err := m.Has(attempt, before, id)
		if err == nil && presence != Same {
			err = backoff.Permanent(fmt.Errorf("%w: shard %s: the servers lost record %d, after which this one was appended",
				ErrFenced, m.shard, before))
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retry.Steady()), backoff.WithMaxElapsedTime(0))
	return err
}

// try tries once to append r. If an earlier try turns out to have succeeded, r becomes what that one appended; their
// IDs begin with id.
func (m *Manifest) try(ctx context.Context, r *Record, id string) (uint64, error) {
	data, err := r.Encode()
	if err != nil {
		return 0, backoff.Permanent(err)
	}
	msg := nats.NewMsg(wire.ManifestSubject(m.shard))
	msg.Data = data
	msg.Header.Set(HeaderEpoch, strconv.FormatUint(r.Epoch, 10))
	msg.Header.Set(wire.HeaderSourceSeq, strconv.FormatUint(r.Source.Seq, 10))
	attempt, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	ack, err := m.js.PublishMsg(attempt, msg, jetstream.WithExpectStream(wire.ManifestStream),
		jetstream.WithExpectLastSequencePerSubject(m.end), jetstream.WithRetryAttempts(0))
	if err == nil {
		return ack.Sequence, nil
	}
	// The append may have happened all the same: by this try, or by an earlier one whose answer was lost.
	last, seq, end, lookErr := m.latest(attempt)
	switch {
	case lookErr != nil:
		return 0, fmt.Errorf("appending to the manifest of shard %s: %w", m.shard, errors.Join(err, lookErr))
	case seq != 0 && strings.HasPrefix(last.ID, id):
		r.ID = last.ID
		return seq, nil
	case end != m.end:
		return 0, backoff.Permanent(fmt.Errorf("%w: shard %s, epoch %d by %s", ErrFenced, m.shard, last.Epoch, last.Owner))
	}
	return 0, fmt.Errorf("appending to the manifest of shard %s: %w", m.shard, err)
}

// scanWindow bounds how many records Scan holds at once; a record is at most max_payload, 1 MiB by default.
const scanWindow = 32

// scanHeartbeat is how often the server says that it still has a request for records. Two that are missing end the
// consumer, and the scan goes on with another.
const scanHeartbeat = time.Second

// ErrGap is wrapped by what Scan returns when records are missing: a checkpoint that was taken meanwhile has them, or a
// power failure of the servers took them.
var ErrGap = errors.New("manifest records are missing")

// Mark names a record by its sequence and its ID, since a power failure lets sequences be used again. The zero Mark is
// the manifest's beginning.
type Mark struct {
	Seq uint64
	ID  string
}

// scanPatience is how long a scan tries to go on when nothing comes: a manifest whose leader is lost gets another one.
const scanPatience = 15 * time.Second

// errInterrupted marks failures of reading the stream, after which a scan goes on with another consumer.
var errInterrupted = errors.New("reading was interrupted")

// Scan calls fn for each record of shard that follows the one at after, which may be dropped since, in order, up to the
// one at upTo, which must exist. left is how many messages the subject has beyond this one. What follows a record that
// is not there any more is left out, see Append. The error wraps ErrGap when a record is missing, also when the one at
// upTo is another one by now, or does not follow the one at after.
func Scan(ctx context.Context, js jetstream.JetStream, shard shardid.Shard, after, upTo Mark,
	fn func(seq, left uint64, r Record) error) error {
	if after == upTo {
		return nil
	}
	s := &scan{js: js, shard: shard, upTo: upTo, fn: fn, chain: chain{last: after, before: after}}
	pause, since := retry.Steady(), time.Now()
	for {
		before := s.chain.before
		err := s.read(ctx)
		if s.chain.before != before {
			pause.Reset()
			since = time.Now()
		}
		if !errors.Is(err, errInterrupted) || time.Since(since) > scanPatience {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading the manifest of shard %s: %w", shard, ctx.Err())
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// scan is one Scan under way.
type scan struct {
	js    jetstream.JetStream
	shard shardid.Shard
	upTo  Mark
	fn    func(seq, left uint64, r Record) error
	chain chain
}

// read goes on with a consumer of its own until the scan is complete, which is no error, or fails, or is interrupted.
func (s *scan) read(ctx context.Context) error {
	interrupted := func(err error) error {
		if ctx.Err() != nil || jsapi.IsPermanent(err) {
			return fmt.Errorf("reading the manifest of shard %s: %w", s.shard, err)
		}
		return fmt.Errorf("reading the manifest of shard %s: %w: %w", s.shard, errInterrupted, err)
	}
	consumer, err := streamreader.Open(ctx, s.js, wire.ManifestStream, wire.ManifestSubject(s.shard), s.chain.before.Seq+1,
		streamreader.Limits{Messages: scanWindow, Heartbeat: scanHeartbeat})
	if err != nil {
		return interrupted(err)
	}
	defer consumer.Stop()
	for {
		msg, err := consumer.Next(ctx)
		if err != nil {
			return interrupted(err)
		}
		if err := s.take(msg); err != nil || msg.Sequence >= s.upTo.Seq {
			return err
		}
	}
}

// take hands one record on, if it counts.
func (s *scan) take(msg streamreader.Message) error {
	seq := msg.Sequence
	base := s.chain.last
	var r Record
	var follows bool
	var err error
	if msg.Header.Get(HeaderEpoch) == "" { // it is none, see isRecord
		s.chain.before = Mark{Seq: seq}
	} else if r, err = Decode(msg.Data); err != nil {
		err = fmt.Errorf("manifest record %d of shard %s: %w", seq, s.shard, err)
	} else {
		r.Stored = msg.Time
		follows, err = s.chain.follows(seq, r)
	}
	if err == nil && seq >= s.upTo.Seq && s.chain.last != s.upTo { // before it is taken for what was asked for
		err = fmt.Errorf("%w: record %d (%s) does not follow record %d (%s)", ErrGap, s.upTo.Seq, s.upTo.ID, base.Seq,
			base.ID)
	}
	if err == nil && follows {
		err = s.fn(seq, msg.Pending, r)
	}
	return err
}

// chain is how far a scan has followed the links of the records.
type chain struct {
	last   Mark // the last record
	before Mark // the last message, which may count for nothing
}

// follows reports whether r, at seq, is the next record, and not one that counts for nothing.
func (c *chain) follows(seq uint64, r Record) (bool, error) {
	before, id := r.before()
	if before > c.before.Seq {
		return false, fmt.Errorf("%w: record %d follows message %d, and the one before it is %d", ErrGap, seq, before,
			c.before.Seq)
	}
	counts := Mark{before, id} == c.before && Mark{r.Prev, r.PrevID} == c.last
	c.before = Mark{seq, r.ID}
	if counts {
		c.last = c.before
	}
	return counts, nil
}

package manifest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
	shard  wire.Shard
	last   uint64 // sequence of the last record; what the next append expects
	record Record // the last record
}

// Open reads the shard's last record. The manifest stream must exist.
func Open(ctx context.Context, js jetstream.JetStream, shard wire.Shard) (*Manifest, error) {
	stream, err := js.Stream(ctx, wire.ManifestStream)
	if err != nil {
		return nil, fmt.Errorf("opening the manifest stream %s: %w", wire.ManifestStream, err)
	}
	m := &Manifest{js: js, stream: stream, shard: shard}
	m.record, m.last, err = m.latest(ctx)
	return m, err
}

// Created returns when the manifest stream was made: another stream is another history.
func (m *Manifest) Created() time.Time { return m.stream.CachedInfo().Created }

// Last returns the last record and its sequence in the manifest stream; sequence 0 means that there is none.
func (m *Manifest) Last() (Record, uint64) { return m.record, m.last }

// Has reports whether the record at seq is the one with that ID, as far as can be told: a record that a snapshot has may be
// gone, and an empty ID is anyone's.
func (m *Manifest) Has(ctx context.Context, seq uint64, id string) (bool, error) {
	if seq == 0 || id == "" {
		return true, nil
	}
	msg, err := m.stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading manifest record %d of shard %s: %w", seq, m.shard, err)
	}
	if msg.Subject != m.shard.ManifestSubject() {
		return false, nil
	}
	r, err := Decode(msg.Data)
	if err != nil {
		return false, fmt.Errorf("manifest record %d of shard %s: %w", seq, m.shard, err)
	}
	return r.ID == id, nil
}

// latest asks the stream's leader: direct reads from replicas may be stale, and the stream is made without them.
func (m *Manifest) latest(ctx context.Context) (Record, uint64, error) {
	msg, err := m.stream.GetLastMsgForSubject(ctx, m.shard.ManifestSubject())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Record{}, 0, nil
	}
	if err != nil {
		return Record{}, 0, fmt.Errorf("reading the last manifest record of shard %s: %w", m.shard, err)
	}
	r, err := Decode(msg.Data)
	if err != nil {
		return r, 0, fmt.Errorf("manifest record %d of shard %s: %w", msg.Sequence, m.shard, err)
	}
	return r, msg.Sequence, nil
}

// Append appends r, whose ID and Time it sets, if nobody else has appended since the last record that m knows, and
// returns its sequence. An append whose answer is lost is looked up by its ID and tried again until it is known to have
// happened or ctx ends. ErrFenced means that it did not happen and never will.
func (m *Manifest) Append(ctx context.Context, r Record) (uint64, error) {
	r.ID, r.Time = uuid.NewString(), time.Now().UTC()
	if r.SnapshotSeq = m.record.SnapshotSeq; m.record.Kind == TakeSnapshot {
		r.SnapshotSeq = m.last
	}
	data, err := r.Encode()
	if err != nil {
		return 0, err
	}
	msg := nats.NewMsg(m.shard.ManifestSubject())
	msg.Data = data
	msg.Header.Set(HeaderEpoch, strconv.FormatUint(r.Epoch, 10))
	seq, err := backoff.Retry(ctx, func() (uint64, error) { return m.try(ctx, msg, r.ID) },
		backoff.WithBackOff(retryPolicy()), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return 0, err
	}
	m.last, m.record = seq, r
	return seq, nil
}

func retryPolicy() backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 50*time.Millisecond, 2*time.Second
	return b
}

func (m *Manifest) try(ctx context.Context, msg *nats.Msg, id string) (uint64, error) {
	attempt, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	ack, err := m.js.PublishMsg(attempt, msg, jetstream.WithExpectStream(wire.ManifestStream),
		jetstream.WithExpectLastSequencePerSubject(m.last), jetstream.WithRetryAttempts(0))
	if err == nil {
		return ack.Sequence, nil
	}
	// The append may have happened all the same: by this try, or by an earlier one whose answer was lost.
	last, seq, lookErr := m.latest(attempt)
	switch {
	case lookErr != nil:
		return 0, fmt.Errorf("appending to the manifest of shard %s: %w", m.shard, errors.Join(err, lookErr))
	case seq != 0 && last.ID == id:
		return seq, nil
	case seq != m.last:
		return 0, backoff.Permanent(fmt.Errorf("%w: shard %s, epoch %d by %s", ErrFenced, m.shard, last.Epoch, last.Owner))
	}
	return 0, fmt.Errorf("appending to the manifest of shard %s: %w", m.shard, err)
}

// scanWindow bounds how many records Scan holds at once; a record is at most max_payload, 1 MiB by default.
const scanWindow = 32

// Scan calls fn for each record of shard above after, in order, up to the one at upTo, which must exist. left is how many
// records the shard has beyond this one.
func Scan(ctx context.Context, js jetstream.JetStream, shard wire.Shard, after, upTo uint64, fn func(seq, left uint64, r Record) error) error {
	if after >= upTo {
		return nil
	}
	consumer, err := js.OrderedConsumer(ctx, wire.ManifestStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{shard.ManifestSubject()},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    after + 1,
	})
	if err != nil {
		return fmt.Errorf("reading the manifest of shard %s: %w", shard, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(scanWindow))
	if err != nil {
		return fmt.Errorf("reading the manifest of shard %s: %w", shard, err)
	}
	defer messages.Stop()
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("reading the manifest of shard %s: %w", shard, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("reading the manifest of shard %s: %w", shard, err)
		}
		r, err := Decode(msg.Data())
		if err != nil {
			return fmt.Errorf("manifest record %d of shard %s: %w", meta.Sequence.Stream, shard, err)
		}
		if err := fn(meta.Sequence.Stream, meta.NumPending, r); err != nil {
			return err
		}
		if meta.Sequence.Stream >= upTo {
			return nil
		}
	}
}

package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/entry"
	"dormouse/internal/header"
	"dormouse/internal/jsapi"
	"dormouse/internal/streamreader"
	"dormouse/store/client"
)

// Bounds of one fetch from the stream.
const (
	fetchEntries = 512
	fetchBytes   = 4 << 20
)

// Bounds of the waits for messages. The server may have announced some that were trimmed before they were sent; those
// never come.
const (
	fetchWait  = 2 * time.Second        // for the first message that was announced
	followWait = 10 * time.Second       // for the first message when nothing was announced
	batchWait  = 250 * time.Millisecond // for the others of a batch
)

// behindPause is how long to wait for a replica that is behind.
const behindPause = 200 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// streamTail is the Tail of a JetStream stream. It keeps its consumer while reads go on where the last one ended.
type streamTail struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	prefix string // subjects are <prefix>.<LogID>

	clustered bool // several servers may answer for it

	consumer *streamreader.Consumer
	log      string
	after    uint64 // what the consumer's next message comes after
	asked    uint64 // what the last fetch was asked for: from there to after there is no entry
	pending  uint64 // messages that the server had not sent yet
	end      uint64 // the log's last entry when the consumer was made, if the server cannot count them
}

func (t *streamTail) name() string { return t.stream.CachedInfo().Config.Name }

// errSilent means that the stream's servers announce entries and do not send them.
var errSilent = errors.New("entries that it has do not come: try again when the cluster is whole")

// errNoMajority means that what the stream's leader says may be old.
var errNoMajority = errors.New("the stream's leader is not in touch with most of its replicas")

// First asks the stream's leader. One that was just elected may not know of all that was acknowledged: most of its
// replicas are not current, and it is asked again.
func (t *streamTail) First(ctx context.Context) (first uint64, err error) {
	state, err := t.state(ctx, current)
	return state.FirstSeq, err
}

func current(r *jetstream.PeerInfo, _ time.Duration) bool { return r.Current && !r.Offline }

// End asks the stream's leader until that has heard from most of its replicas since the first question: so long no
// other one was elected, and it knows of all that was acknowledged before. (Raft's read index; Ongaro 2014, 6.4.) A
// leader that was cut off does not notice for some ten seconds. One that is idle hears from its replicas once a second.
func (t *streamTail) End(ctx context.Context) (last uint64, err error) {
	state, err := t.state(ctx, func(r *jetstream.PeerInfo, asking time.Duration) bool {
		return r.Active > 0 && r.Active < asking
	})
	return state.LastSeq, err
}

// state returns the stream's state as its leader has it, once good holds for most of its replicas, of which the leader
// itself is one. asking is how long before this question the first one was sent.
func (t *streamTail) state(ctx context.Context, good func(r *jetstream.PeerInfo, asking time.Duration) bool,
	opts ...jetstream.StreamInfoOpt) (jetstream.StreamState, error) {
	began := time.Now()
	info, err := client.Persist(ctx, func(ctx context.Context) (*jetstream.StreamInfo, error) {
		asking := time.Since(began)
		info, err := t.stream.Info(ctx, opts...)
		if err != nil || info.Cluster == nil {
			return info, err
		}
		most := 1
		for _, replica := range info.Cluster.Replicas {
			if good(replica, asking) {
				most++
			}
		}
		if most <= info.Config.Replicas/2 {
			return nil, errNoMajority
		}
		return info, nil
	})
	if err != nil {
		return jetstream.StreamState{}, fmt.Errorf("reading the bounds of stream %s: %w", t.name(), err)
	}
	t.clustered = info.Cluster != nil && info.Config.Replicas > 1
	return info.State, nil
}

func (t *streamTail) Fetch(ctx context.Context, log string, after uint64, wait bool) ([]entry.Entry, error) {
	asked := after
	if t.log == log && t.asked == asked {
		after = max(after, t.after) // what lies between is none of the log's entries
	}
	var behind, failing time.Time // since when the replica is seen to be behind, and nothing comes
	for {
		if t.consumer == nil || t.log != log || t.after != after || !wait && t.pending == 0 {
			if err := t.open(ctx, log, after); err != nil {
				return nil, fmt.Errorf("reading from stream %s: %w", t.name(), err)
			}
		}
		t.asked = asked
		if t.pending == 0 && !wait {
			last, err := t.last(ctx, log)
			if err != nil {
				return nil, fmt.Errorf("reading from stream %s: %w", t.name(), err)
			}
			if last <= after {
				return nil, nil
			}
			// The consumer is at a replica that is behind the stream's leader, or cut off from it. A new one may be elsewhere.
			if behind.IsZero() {
				behind = time.Now()
			}
			if time.Since(behind) > client.Patience {
				return nil, fmt.Errorf("reading from stream %s: the replica that answers lacks entry %d, which the stream has: "+
					"try again when the cluster is whole", t.name(), last)
			}
			if err := sleep(ctx, behindPause); err != nil {
				return nil, err
			}
			continue
		}
		batch, err := t.collect(ctx, after)
		if len(batch) > 0 {
			t.asked = batch[len(batch)-1].Seq
		} else if t.after > after {
			after = t.after
			if err == nil && ctx.Err() == nil {
				continue
			}
		}
		if err != nil || len(batch) == 0 {
			t.close() // a new consumer knows whether what was announced is still there, and replaces one that died
		}
		if len(batch) > 0 {
			return batch, nil
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		if ctx.Err() != nil || time.Since(failing) > client.Patience {
			if err == nil {
				err = errSilent
			}
			return nil, fmt.Errorf("reading from stream %s: %w", t.name(), err)
		}
		if err != nil {
			if err := sleep(ctx, behindPause); err != nil {
				return nil, err
			}
		}
		if wait {
			return nil, nil
		}
	}
}

// answersWait is how long to wait for the answers of further servers that take themselves for the stream's leader.
const answersWait = 250 * time.Millisecond

// last asks the stream's leader for the sequence of the log's last entry, 0 without any. The library would ask any
// replica. In a cluster one that is the leader no more may answer too, and sooner: the highest answer counts.
func (t *streamTail) last(ctx context.Context, log string) (uint64, error) {
	request, err := json.Marshal(jsapi.Query{LastFor: t.prefix + "." + log})
	if err != nil {
		return 0, err
	}
	if _, err := t.First(ctx); err != nil { // the leader is one
		return 0, err
	}
	nc, subject := t.js.Conn(), jsapi.Subject(t.js, jsapi.QueryRequest(t.name()))
	return client.Persist(ctx, func(ctx context.Context) (last uint64, err error) {
		answers, err := nc.SubscribeSync(nc.NewInbox())
		if err != nil {
			return 0, err
		}
		defer func() { _ = answers.Unsubscribe() }() // fails only when the connection is closed
		if err := nc.PublishRequest(subject, answers.Subject, request); err != nil {
			return 0, err
		}
		msg, err := answers.NextMsgWithContext(ctx)
		for wait := answersWait; err == nil; msg, err = answers.NextMsg(wait) {
			seq, err := lastOf(msg)
			if err != nil {
				return 0, err
			}
			last = max(last, seq)
			if !t.clustered {
				return last, nil
			}
		}
		if errors.Is(err, nats.ErrTimeout) {
			err = nil
		}
		return last, err
	})
}

// lastOf reads one answer to the question for a subject's last message.
func lastOf(msg *nats.Msg) (uint64, error) {
	var answer jsapi.Found
	err := jsapi.Decode(msg, &answer)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = nil
	}
	return answer.Message.Sequence, err
}

// open makes a consumer of the log's one subject. Its creation tells whether there is anything to wait for.
func (t *streamTail) open(ctx context.Context, log string, after uint64) error {
	t.close()
	consumer, err := client.Persist(ctx, func(ctx context.Context) (*streamreader.Consumer, error) {
		return streamreader.Open(ctx, t.js, t.name(), t.prefix+"."+log, after+1,
			streamreader.Limits{Messages: fetchEntries, Bytes: fetchBytes})
	})
	if err != nil {
		return err
	}
	t.consumer, t.log, t.after, t.pending = consumer, log, after, consumer.Pending()
	if !countable(log) {
		if t.end, err = t.last(ctx, log); err != nil {
			t.close()
			return err
		}
		t.count(0)
	}
	return nil
}

// countable reports whether the server counts right what it has of a log. Of one that ends in * or > it counts all that
// begin like it.
func countable(log string) bool { return !strings.HasSuffix(log, "*") && !strings.HasSuffix(log, ">") }

// count notes how many messages the server says it has beyond the last one, or whether it has some.
func (t *streamTail) count(pending uint64) {
	switch {
	case countable(t.log):
		t.pending = pending
	case t.after < t.end:
		t.pending = 1
	default:
		t.pending = 0
	}
}

// collect takes what comes, and returns nothing after a wait in vain.
func (t *streamTail) collect(ctx context.Context, after uint64) (batch []entry.Entry, err error) {
	patience := followWait
	if t.pending > 0 {
		patience = fetchWait
	}
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := t.next(ctx, first)
	rest, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	for size := 0; msg.Sequence > 0 && err == nil; msg, err = t.next(ctx, rest) {
		if msg.Sequence > after { // a consumer that is to start above the stream's end starts at its end
			headers, isEntry, err := t.headers(ctx, msg)
			if err != nil {
				return batch, err
			}
			if t.after = msg.Sequence; isEntry {
				batch = append(batch, entry.Entry{Log: t.log, Seq: msg.Sequence, Time: msg.Time.UTC(), Headers: headers,
					Data: msg.Data})
			}
			size += len(msg.Data) + msg.HeaderBytes
		}
		t.count(msg.Pending)
		if t.pending == 0 || len(batch) == fetchEntries || size >= fetchBytes {
			break
		}
	}
	return batch, err
}

// headers returns a message's headers as the archive will have them. Without a header block of names and values it is
// not an entry, but rejected. One that is gone was deleted, or is archived by now, which the reader looks at
// afterwards.
func (t *streamTail) headers(ctx context.Context, msg streamreader.Message) (headers map[string][]string, isEntry bool,
	err error) {
	if header.Fits(msg.HeaderBytes, msg.Header) {
		return msg.Header, true, nil
	}
	stored, err := client.Persist(ctx, func(ctx context.Context) (jsapi.Message, error) {
		return jsapi.Get(ctx, t.js, t.name(), msg.Sequence)
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading the headers of entry %d: %w", msg.Sequence, err)
	}
	headers, err = header.Parse(stored.Header)
	return headers, err == nil, nil
}

// next returns the next message, or one without a sequence when the wait is over before ctx is.
func (t *streamTail) next(ctx, wait context.Context) (streamreader.Message, error) {
	msg, err := t.consumer.Next(wait)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return streamreader.Message{}, nil
	}
	return msg, err
}

func (t *streamTail) close() {
	if t.consumer != nil {
		t.consumer.Stop()
		t.consumer = nil
	}
}

package hostile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"dormouse/internal/entry"
	"dormouse/internal/header"
	"dormouse/internal/logid"
)

// judge knows what hostile publishers were acked, and what became of it.
type judge struct {
	mu       sync.Mutex
	acked    map[uint64]publication // by sequence, as the stream stored them
	gone     map[uint64]publication // by sequence, as they were sent: acked, and trimmed before they were looked at
	sent     int
	rejected map[uint64][]*nats.Msg // by sequence in the source stream
}

func newJudge() *judge {
	return &judge{acked: make(map[uint64]publication), gone: make(map[uint64]publication),
		rejected: make(map[uint64][]*nats.Msg)}
}

// tell takes the answers to publications. stored returns a message as the stream has it, which is what counts: the
// server takes a status off the first line, for one, and of what comes through an import it takes the shortest blocks
// for payload. Of what the stream has no more, the log, the sequence and the payload's end are known all the same.
func (j *judge) tell(all []publication, acks map[int]ack, stored func(seq uint64) (publication, error)) {
	for i, a := range acks {
		if a.Error != nil || a.Duplicate || a.Seq == 0 {
			continue
		}
		p, err := stored(a.Seq)
		j.mu.Lock()
		if err != nil {
			j.gone[a.Seq] = all[i]
		} else {
			p.subject = all[i].subject // JSON does not tell what is not UTF-8
			j.acked[a.Seq] = p
		}
		j.mu.Unlock()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sent += len(all)
}

// tellRejected takes a message of DORMOUSE_REJECTED.
func (j *judge) tellRejected(msg *nats.Msg) error {
	seq, err := strconv.ParseUint(msg.Header.Get("Dormouse-Sequence"), 10, 64)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rejected[seq] = append(j.rejected[seq], msg)
	return err
}

func (j *judge) rejectedMessages() (n uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, parts := range j.rejected {
		n += uint64(len(parts))
	}
	return n
}

// logs returns the LogIDs of what was acked.
func (j *judge) logs() map[string]bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	logs := make(map[string]bool)
	for _, p := range j.all() {
		if log, err := logid.FromSubject("logs", p.subject); err == nil {
			logs[log] = true
		}
	}
	return logs
}

// all yields what was acked, by sequence.
func (j *judge) all() iter.Seq2[uint64, publication] {
	return func(yield func(uint64, publication) bool) {
		for _, part := range []map[uint64]publication{j.acked, j.gone} {
			for seq, p := range part {
				if !yield(seq, p) {
					return
				}
			}
		}
	}
}

// compare holds what was read of all logs, by sequence, and what was rejected against all that was acked: each
// publication is in one of them, whole. It returns how many are readable.
func (j *judge) compare(read map[uint64]string) (readable int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for seq, p := range j.all() {
		line, ok := read[seq]
		aside := j.rejected[seq]
		_, gone := j.gone[seq]
		switch {
		case ok && aside != nil:
			err = errors.New("it is readable and in DORMOUSE_REJECTED")
		case ok && gone:
			readable++
			err = p.resemblesLine(line)
		case ok:
			readable++
			err = p.isLine(line)
		case aside != nil && gone:
			err = p.resemblesRejected(aside)
		case aside != nil:
			err = p.isRejected(aside)
		default:
			err = errors.New("it is nowhere")
		}
		if err != nil && len(errs) < 10 {
			errs = append(errs, fmt.Errorf("entry %d, subject %.100q, headers %.200q, %d bytes: %w", seq, p.subject, p.block,
				len(p.payload), err))
		}
	}
	return readable, errors.Join(errs...)
}

// line is one of `dormouse read --output jsonl`.
type line struct {
	Log, Data, Encoding string
	Headers             map[string][]string
	HeadersBase64       map[string][]string `json:"headers_base64"`
}

func parseLine(text string) (l line, err error) {
	if err = json.Unmarshal([]byte(text), &l); err == nil && l.Encoding == "base64" {
		l.Data = decoded(l.Data)
	}
	return l, err
}

// resemblesLine compares what is known of the publication without its form in the stream.
func (p publication) resemblesLine(text string) error {
	line, err := parseLine(text)
	if err == nil && ("logs."+line.Log != p.subject || !strings.HasSuffix(line.Data, string(p.payload))) {
		err = fmt.Errorf("read as %.300q", text)
	}
	return err
}

// isLine compares the publication with a line.
func (p publication) isLine(text string) error {
	line, err := parseLine(text)
	if err != nil {
		return err
	}
	headers := line.Headers
	for name, values := range line.HeadersBase64 {
		raw := make([]string, len(values))
		for i := range values {
			raw[i] = decoded(values[i])
		}
		headers[decoded(name)] = raw
	}
	if "logs."+line.Log != p.subject || line.Data != string(p.payload) {
		return fmt.Errorf("read as %.300q", text)
	}
	return p.hasHeaders(headers)
}

func decoded(text string) string {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// hasHeaders compares names and values. Bytes that are neither may be passed over where lines are just so much shorter
// than usual, see header.Fits.
func (p publication) hasHeaders(headers map[string][]string) error {
	want := make(map[string][]string)
	if len(p.block) > 0 {
		var err error
		if want, err = header.Parse(p.block); err != nil {
			read, derr := nats.DecodeHeadersMsg(p.block)
			if derr != nil || !header.Fits(len(p.block), read) {
				return fmt.Errorf("kept with headers %.300q, though %w", headers, err)
			}
			want = read
		}
	}
	if len(headers)+len(want) > 0 && !reflect.DeepEqual(headers, want) {
		return fmt.Errorf("kept with headers %.300q, want %.300q", headers, want)
	}
	return nil
}

// resemblesRejected is resemblesLine for what is kept in DORMOUSE_REJECTED.
func (p publication) resemblesRejected(kept []*nats.Msg) error {
	var content []byte
	for _, part := range kept {
		content = append(content, part.Data...)
	}
	if got := kept[0].Header.Get("Dormouse-Subject"); got != p.subject || !bytes.HasSuffix(content, p.payload) {
		return fmt.Errorf("rejected as %.100q with %.200q", got, content)
	}
	return nil
}

// oneCopy returns the first of the copies of a message, which are all alike. There is another one each time that an
// owner with an empty disk met the message later than the stream remembers its id.
func oneCopy(kept []*nats.Msg) ([]*nats.Msg, error) {
	parts := 1
	if _, all, ok := strings.Cut(kept[0].Header.Get("Dormouse-Part"), "/"); ok {
		var err error
		if parts, err = strconv.Atoi(all); err != nil || parts < 1 || len(kept)%parts != 0 {
			return nil, fmt.Errorf("rejected in %d messages, the first of which is %q", len(kept),
				kept[0].Header.Get("Dormouse-Part"))
		}
	}
	for i, msg := range kept {
		first := kept[i%parts]
		if msg.Header.Get("Nats-Msg-Id") != first.Header.Get("Nats-Msg-Id") || !bytes.Equal(msg.Data, first.Data) {
			return nil, fmt.Errorf("rejected in %d messages, of which number %d is another one than number %d", len(kept), i+1,
				i%parts+1)
		}
	}
	return kept[:parts], nil
}

// isRejected compares the publication with what is kept of it in DORMOUSE_REJECTED.
func (p publication) isRejected(kept []*nats.Msg) error {
	kept, err := oneCopy(kept)
	if err != nil {
		return err
	}
	first := kept[0].Header
	if got := first.Get("Dormouse-Subject"); got != p.subject || first.Get("Dormouse-Reason") == "" {
		return fmt.Errorf("rejected as %.100q because %.100q", got, first.Get("Dormouse-Reason"))
	}
	var content []byte
	for i, part := range kept {
		if want := fmt.Sprintf("%d/%d", i+1, len(kept)); len(kept) > 1 && part.Header.Get("Dormouse-Part") != want {
			return fmt.Errorf("rejected in parts, of which %q is where %q should be", part.Header.Get("Dormouse-Part"), want)
		}
		content = append(content, part.Data...)
	}
	if block, err := strconv.Atoi(first.Get("Dormouse-Block")); err == nil {
		if !bytes.Equal(content, append(p.block[:len(p.block):len(p.block)], p.payload...)) || block != len(p.block) {
			return fmt.Errorf("rejected as %d + %d bytes: %.200q", block, len(content)-block, content)
		}
		return nil
	}
	if first.Get("Dormouse-Part") != "" {
		v, err := entry.DecodeValue(content)
		if err != nil || !bytes.Equal(v.Data, p.payload) {
			return fmt.Errorf("rejected as an entry value of %d bytes, %w", len(content), err)
		}
		return p.hasHeaders(v.Headers)
	}
	headers := make(map[string][]string)
	for name, values := range first {
		plain, renamed := strings.CutPrefix(name, "Dormouse-Original-")
		if renamed || !strings.HasPrefix(name, "Dormouse-") && name != "Nats-Msg-Id" {
			headers[plain] = values
		}
	}
	if !bytes.Equal(content, p.payload) {
		return fmt.Errorf("rejected with the payload %.200q", content)
	}
	return p.hasHeaders(headers)
}

package streamreader

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Requests. There is one at a time, but for those of the beginning: the room of the client is that of one request,
// and the server's word about it. Each has a reply subject of its own, so that a word about an old one is known as
// that.
const (
	requestLife = 30 * time.Second // of one request; then the server says that it is over, and is asked again

	// The first request is answered at once, with what there is or with the word that there is nothing. In a cluster
	// it may come before it is known which server has the consumer, and gets lost; so it is sent again soon.
	probeMessages = 64
	probeWait     = 150 * time.Millisecond // doubled each time
	probes        = 5                      // 4.65 s
)

// pull asks the server for messages.
type pull struct {
	nc      *nats.Conn
	subject string // of the requests
	inbox   string // beginning of the reply subjects; the request's number follows
	limits  Limits

	number uint64 // of the request in hand
	asked  time.Time
	batch  int // messages that it asked for
	left   int // messages that it may still bring; 0: another one is needed

	heard bool // the server has answered something
	tries int  // requests before that
	alone bool // the next message is larger than limits.Bytes

	wait     time.Duration // for anything to come, before patience ends
	until    time.Time     // when it ends
	came     bool          // something came since until was set
	patience *time.Timer
}

func newPull(nc *nats.Conn, subject string, limits Limits) pull {
	if limits.Heartbeat == 0 {
		limits.Heartbeat = defaultHeartbeat
	}
	limits.Messages = max(limits.Messages, 1)
	patience := time.NewTimer(0)
	patience.Stop()
	return pull{nc: nc, subject: subject, inbox: nc.NewInbox() + ".", limits: limits, patience: patience}
}

// room is how much the server may send while the reader takes nothing: the messages of a request and of those at the
// beginning, its heartbeats, and the words that requests are over.
func (p *pull) room() int {
	return p.limits.Messages + probes*(probeMessages+2) + int(requestLife/p.limits.Heartbeat) + 2
}

// request is the body of a request for messages.
type request struct {
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
	Expires   time.Duration `json:"expires,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
}

// ask sends the next request.
func (p *pull) ask() error {
	r := request{Batch: p.limits.Messages, MaxBytes: p.limits.Bytes}
	if p.heard {
		r.Expires, r.Heartbeat, p.wait = requestLife, p.limits.Heartbeat, 2*p.limits.Heartbeat
	} else {
		r.Batch, r.NoWait, p.wait = min(r.Batch, probeMessages), true, probeWait<<p.tries
		p.tries++
	}
	if p.alone {
		r.Batch, r.MaxBytes, p.alone = 1, 0, false
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	p.number++
	p.batch, p.left, p.asked = r.Batch, r.Batch, time.Now()
	p.until, p.came = p.asked.Add(p.wait), false
	return p.nc.PublishRequest(p.subject, p.inbox+strconv.FormatUint(p.number, 10), body)
}

// await sets patience for something to come. It goes on over the waits of a reader, who may end each of them long
// before patience would.
func (p *pull) await() {
	if p.came {
		p.until, p.came = time.Now().Add(p.wait), false
	}
	p.patience.Reset(time.Until(p.until))
}

// again is called when nothing came for as long as wait.
func (p *pull) again() error {
	if p.heard || p.tries == probes {
		return fmt.Errorf("%w for %s", errSilent, time.Since(p.asked).Round(time.Millisecond))
	}
	return p.ask()
}

// answered notes that requests reach the server.
func (p *pull) answered() { p.heard = true }

// took notes that a message came.
func (p *pull) took() {
	p.heard = true
	if p.left > 0 { // a second request of the beginning may have brought it, too
		p.left--
	}
}

// Statuses of the server's words.
const (
	statusHeartbeat    = "100"
	statusNoMessages   = "404"
	statusOver         = "408"
	statusConflict     = "409"
	statusNoResponders = "503"
)

// word is what the server says.
type word struct {
	status, text      string
	counts            bool   // a heartbeat that says what follows
	delivered, passed uint64 // consumer and stream sequence up to which it went
	left              int    // messages that the request had not brought; -1 when it does not say
}

func readWord(msg *nats.Msg) word {
	w := word{status: msg.Header.Get("Status"), text: msg.Header.Get("Description"), left: -1}
	delivered, ok := parseNumber(msg.Header.Get("Nats-Last-Consumer"))
	passed, also := parseNumber(msg.Header.Get("Nats-Last-Stream"))
	w.counts, w.delivered, w.passed = ok && also, delivered, passed
	if left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages")); err == nil {
		w.left = left
	}
	return w
}

func (w word) String() string { return w.status + " " + w.text }

// end takes up that a request is over, or returns why the consumer is.
func (p *pull) end(number string, w word) error {
	var tooLarge, complete bool
	switch text := strings.ToLower(w.text); w.status {
	case statusNoMessages, statusOver:
	case statusNoResponders:
		if !p.heard { // lost, and sent again when patience is over
			return nil
		}
		return nats.ErrNoResponders
	case statusConflict:
		tooLarge, complete = strings.Contains(text, "exceeds maxbytes"), strings.Contains(text, "batch completed")
		switch {
		case tooLarge, complete:
		case strings.Contains(text, "consumer deleted"):
			return jetstream.ErrConsumerDeleted
		case strings.Contains(text, "leadership change"):
			return jetstream.ErrConsumerLeadershipChanged
		case strings.Contains(text, "server shutdown"):
			return jetstream.ErrServerShutdown
		default:
			return fmt.Errorf("the server refuses to send messages: %s", w)
		}
	default:
		return fmt.Errorf("the server refuses to send messages: %s", w)
	}
	if number != strconv.FormatUint(p.number, 10) {
		return nil
	}
	switch {
	case w.left >= 0 && w.left < p.left: // it has sent more than came, and the messages would have come before this
		return fmt.Errorf("%w: the last %d", errMissed, p.left-w.left)
	case tooLarge:
		p.alone = w.left == p.batch
	case p.heard && p.left == p.batch && time.Since(p.asked) < requestLife/2: // else it could be asked without a pause
		return fmt.Errorf("the server ends a request that has just begun: %s", w)
	}
	p.heard, p.left = true, 0
	return nil
}

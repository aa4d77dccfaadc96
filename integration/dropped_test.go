package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// dropping is a user's stream that drops entries while they are only buffered.
type dropping struct {
	*instance
	js     jetstream.JetStream
	stream jetstream.Stream
	cfg    jetstream.StreamConfig
	want   map[string][]string // payloads by log
	seqs   map[string][]uint64
	first  time.Time // of the first entry
}

func (d *dropping) publish(log string, headers ...string) {
	d.t.Helper()
	msg := nats.NewMsg("logs." + log)
	msg.Data = fmt.Appendf(nil, "%s %d", log, len(d.want[log])+1)
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	ack, err := d.js.PublishMsg(d.t.Context(), msg)
	if err != nil {
		d.t.Fatal(err)
	}
	d.want[log] = append(d.want[log], string(msg.Data))
	d.seqs[log] = append(d.seqs[log], ack.Sequence)
}

func (d *dropping) entries() (n uint64) {
	for _, entries := range d.want {
		n += uint64(len(entries))
	}
	return n
}

// awaitTakenIn waits until the owner has all that was published.
func (d *dropping) awaitTakenIn() {
	d.t.Helper()
	d.until("all to be taken in", func() bool {
		m := d.metrics()
		return m["dormouse_entries_ingested_total"] == float64(d.entries())
	})
}

func (d *dropping) update(change func(*jetstream.StreamConfig)) {
	d.t.Helper()
	change(&d.cfg)
	if _, err := d.js.UpdateStream(d.t.Context(), d.cfg); err != nil {
		d.t.Fatal(err)
	}
}

// messages is how many messages the stream has left.
func (d *dropping) messages() uint64 {
	d.t.Helper()
	info, err := d.stream.Info(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return info.State.Msgs
}

// follow follows a log and returns what it printed so far.
func (d *dropping) follow(log string) (lines func() []string) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.t.Context()))
	cmd := d.cli().Command(ctx, "read", log, "--follow")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		d.t.Fatal(err)
	}
	var mu sync.Mutex
	var all []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for printed := bufio.NewScanner(out); printed.Scan(); {
			mu.Lock()
			all = append(all, printed.Text())
			mu.Unlock()
		}
	}()
	d.t.Cleanup(func() {
		cancel()
		<-done
		_ = cmd.Wait() // killed
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// check looks at every log with every command that shows it.
func (d *dropping) check(when string, archived bool) {
	d.t.Helper()
	listed := d.must("", "ls", "--output", "jsonl")
	for log, want := range d.want {
		text := strings.Join(want, "\n") + "\n"
		if got := d.must("", "read", log); got != text {
			d.t.Errorf("%s: %s reads %q, want %q", when, log, got, text)
		}
		last, count := d.seqs[log][len(want)-1], len(want)
		if got := d.must("", "read", log, "--from", fmt.Sprint(d.seqs[log][1]), "--to",
			fmt.Sprint(last)); got != strings.Join(want[1:], "\n")+"\n" {
			d.t.Errorf("%s: %s from the second entry reads %q", when, log, got)
		}
		if got := d.must("", "read", log, "--from", d.first.Format(time.RFC3339Nano), "--to", "0s"); got != text {
			d.t.Errorf("%s: %s from a time reads %q", when, log, got)
		}
		var s struct {
			Log                string
			Entries            int
			First, Last        uint64
			Archived, Buffered struct{ Entries int }
		}
		stat := d.must("", "stat", log, "--output", "json")
		if err := json.Unmarshal([]byte(stat), &s); err != nil {
			d.t.Fatal(err)
		}
		part := s.Buffered.Entries
		if archived {
			part = s.Archived.Entries
		}
		if s.Log != log || s.Entries != count || part != count || s.First != d.seqs[log][0] || s.Last != last ||
			!strings.Contains(listed, stat) {
			d.t.Errorf("%s: %s is %s, listed are\n%s", when, log, stat, listed)
		}
		verified := d.must("", "verify", log)
		if want := fmt.Sprintf(" %d entries: 0 bad", map[bool]int{true: count}[archived]); !strings.Contains(verified, want) {
			d.t.Errorf("%s: %s: %s, want %s", when, log, verified, want)
		}
	}
	shard, lag := d.status().Shards[0], d.entries()
	if archived {
		lag = 0
	}
	if shard.Lag != lag || shard.Buffered != lag || (shard.Oldest == nil) != archived || !archived &&
		!shard.Oldest.Equal(d.first) {
		d.t.Errorf("%s: the shard is %+v, want a lag of %d since %s", when, shard, lag, d.first)
	}
}

// TestStreamDropsWhatIsBuffered: entries that a user's stream drops, for whatever reason, while only the owner has
// them, are read in their place, before their commit and after it. Following misses none.
func TestStreamDropsWhatIsBuffered(t *testing.T) {
	t.Parallel()
	outside := startOutsideNATS(t)
	_, js := dial(t, outside.addr)
	d := &dropping{js: js, want: make(map[string][]string), seqs: make(map[string][]uint64),
		cfg: jetstream.StreamConfig{Name: "LOGS", Subjects: []string{"logs.>"}, AllowRollup: true, AllowMsgTTL: true}}
	var err error
	if d.stream, err = js.CreateStream(t.Context(), d.cfg); err != nil {
		t.Fatal(err)
	}
	d.instance = outside.instance(append(fast, "--max-delay", "1h", "--requeue-after", "2h")...).start()
	info, err := d.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d.cfg = info.Config // with the metadata of a shard

	logs := []string{"t.deleted", "t.purged", "t.rolled", "t.expired", "t.limited", "t.gone"}
	for _, log := range logs {
		headers := []string{}
		if log == "t.expired" {
			headers = []string{"Nats-TTL", "1s"}
		}
		for range 3 {
			d.publish(log, headers...)
		}
	}
	d.awaitTakenIn()
	msg, err := d.stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	d.first = msg.Time
	followed := make(map[string]func() []string)
	for _, log := range logs[:5] {
		followed[log] = d.follow(log)
	}
	d.until("the followers to be there", func() bool {
		return !slices.ContainsFunc(logs[:5], func(log string) bool { return len(followed[log]()) < 3 })
	})

	for _, seq := range d.seqs["t.deleted"][1:] {
		if err := d.stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	for _, log := range []string{"t.purged", "t.gone"} {
		if err := d.stream.Purge(t.Context(), jetstream.WithPurgeSubject("logs."+log)); err != nil {
			t.Fatal(err)
		}
	}
	d.publish("t.rolled", "Nats-Rollup", "sub")
	d.update(func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 })
	// one each of deleted, rolled, limited
	d.until("the entries to leave the stream", func() bool { return d.messages() == 3 })
	d.awaitTakenIn()
	d.check("buffered", false)

	for _, log := range logs[:5] { // each but the last leaves the stream with the next
		for range 5 {
			d.publish(log)
			d.awaitTakenIn()
		}
	}
	d.check("buffered, with more", false)
	d.update(func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = time.Second, time.Second })
	d.until("the stream to be empty", func() bool { return d.messages() == 0 })
	d.check("buffered only", false)
	for log, lines := range followed {
		d.until(log+" to be followed", func() bool { return slices.Equal(lines(), d.want[log]) })
	}

	if code := d.stop(); code != 0 {
		t.Fatalf("exit %d\n%s", code, d.Tail())
	}
	d.args = append(d.args, "--max-delay", "100ms", "--requeue-after", "3s")
	d.start().awaitMetric("dormouse_entries_synced_total", float64(d.entries()))
	d.check("archived", true)
	for log, lines := range followed {
		if got := lines(); !slices.Equal(got, d.want[log]) {
			t.Errorf("%s was followed with %q", log, got)
		}
	}
}

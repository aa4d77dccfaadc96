// Package hostile lets a tenant publish, from its own account and over a raw connection, whatever the protocol allows,
// beside honest tenants, while the program is killed and started again. Nothing of it may vanish, and nothing may hold
// up the others.
//
// Open publication_test.go for what is published, judge_test.go for what must become of it, system_test.go for what
// runs.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	programtest.Main(m, func(dir string) error {
		binary = filepath.Join(dir, "dormouse")
		return programtest.Build(binary, programtest.Dormouse, "-race")
	})
}

const (
	shortTime   = 6 * time.Second
	roundTime   = 2 * time.Second // from kill to kill
	batch       = 40              // hostile publications whose acks are waited for together
	largeEvery  = 800             // publications, one is about as large as max_payload
	honestLogs  = 5
	honestBound = 30 * time.Second // for all that is published to be archived, once publishing is over
)

func setting[T any](t *testing.T, name string, def T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	value, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// TestHostilePublisher: DORMOUSE_SEED replays what is published, DORMOUSE_HOSTILE_TIME is how long.
func TestHostilePublisher(t *testing.T) {
	seed := setting(t, "DORMOUSE_SEED", uint64(time.Now().UnixNano()), func(s string) (uint64, error) {
		return strconv.ParseUint(s, 10, 64)
	})
	length := setting(t, "DORMOUSE_HOSTILE_TIME", shortTime, time.ParseDuration)
	t.Logf("DORMOUSE_SEED=%d DORMOUSE_HOSTILE_TIME=%s", seed, length)
	s := startSystem(t)
	r := rand.New(rand.NewPCG(seed, 0))
	honest, hostile := programtest.NewOracle(), newJudge()
	stopWatching := s.watchRejected(hostile)
	load := programtest.Beside(t, append(s.honest(honest, seed), s.hostile(hostile, seed))...)
	for end := time.Now().Add(length); time.Now().Before(end); {
		pause := time.NewTimer(roundTime/2 + time.Duration(r.Int64N(int64(roundTime))))
		<-pause.C
		s.kill(r.IntN(3) == 0)
		s.start()
	}
	load.Stop()
	s.checkHonest(honest) // in the archive and in the stream
	s.awaitArchived(honestBound)
	stopWatching()
	s.checkHonest(honest)
	readable := s.checkHostile(hostile)
	if out := s.run("verify"); out.Code != 0 {
		t.Errorf("dormouse verify: exit %d, %s%s", out.Code, out.Out, out.Err)
	}
	acked, _ := honest.Counts()
	t.Logf("%d honest entries; %d hostile publications, of which %d were acked, %d of them trimmed at once, %d are "+
		"readable and %d rejected", acked, hostile.sent, len(hostile.acked)+len(hostile.gone), len(hostile.gone), readable,
		len(hostile.rejected))
	if acked == 0 || readable == 0 || len(hostile.rejected) == 0 {
		t.Error("the load shows nothing")
	}
	if m := proc.Metrics(t.Context(), s.http); m["dormouse_entries_lost_total"] != 0 ||
		m["dormouse_shard_stuck"] != 0 {
		t.Errorf("%v entries are counted as lost, %v shards are stuck", m["dormouse_entries_lost_total"],
			m["dormouse_shard_stuck"])
	}
}

// honest returns publishers of another tenant.
func (s *system) honest(o *programtest.Oracle, seed uint64) (loops []func(context.Context)) {
	nc, js := programtest.Dial(s.t, s.url("globex"))
	r := rand.New(rand.NewPCG(seed, 1))
	p := &programtest.Publisher{Burst: 12, Size: 300, Random: r, Tell: o.Tell,
		Send: func(subject string, data []byte) (jetstream.PubAckFuture, error) {
			return js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: data}, jetstream.WithRetryAttempts(0))
		},
		Pause: func(bool) time.Duration { return time.Duration(5+r.IntN(20)) * time.Millisecond }}
	for n := range honestLogs {
		p.Logs = append(p.Logs, fmt.Sprintf("globex.web.log%d", n))
	}
	return append(loops, func(ctx context.Context) { defer nc.Close(); p.Run(ctx) })
}

// hostile returns the hostile publisher.
func (s *system) hostile(j *judge, seed uint64) func(context.Context) {
	g := &generator{r: rand.New(rand.NewPCG(seed, 2)), tenant: "acme", limit: 1 << 20}
	return func(ctx context.Context) {
		var w *rawConn
		var err error
		for connections := 0; ctx.Err() == nil; {
			if w == nil {
				connections++
				w, err = dialRaw(s.addr(), "acme", "secret-of-acme", fmt.Sprintf("_INBOX.h%d", connections))
			}
			var acks map[int]ack
			all := make([]publication, batch)
			for i := range all {
				all[i] = g.next()
			}
			all[batch-1] = publication{subject: "logs.acme.end-of-batch"}
			if err == nil {
				acks, err = w.publish(all)
			}
			j.tell(all, acks, s.stored)
			if err != nil && w != nil { // the server has had enough of this connection
				err = errors.Join(nil, w.Close())
				w = nil
			}
		}
		if w != nil {
			_ = w.Close()
		}
	}
}

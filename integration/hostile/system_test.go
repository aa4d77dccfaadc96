package hostile

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/proc"
	"dormouse/internal/programtest"
	"dormouse/internal/wire"
)

const patience = 60 * time.Second

// system is the program beside a NATS server with the accounts as they are shipped. The server lives as long as the
// test, the program comes and goes.
type system struct {
	proc.Process
	t    *testing.T
	srv  *server.Server
	data string
	http string
	js   jetstream.JetStream
}

func startSystem(t *testing.T) *system {
	t.Helper()
	for _, name := range []string{"DORMOUSE", "READER", "ACME", "GLOBEX", "SYS"} {
		t.Setenv(name+"_PASSWORD", "secret-of-"+strings.ToLower(name))
	}
	options, err := server.ProcessConfigFile("../../deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.HTTPPort, options.StoreDir = "127.0.0.1", server.RANDOM_PORT, 0, t.TempDir()
	options.NoLog, options.NoSigs = true, true
	srv, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	s := &system{Process: proc.Process{Log: filepath.Join(t.TempDir(), "output")}, t: t, srv: srv,
		data: t.TempDir(), http: programtest.FreeAddr(t)}
	_, s.js = programtest.Dial(t, s.url("dormouse"))
	s.start()
	t.Cleanup(func() {
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the program's output ends:\n%s", s.Tail())
		}
	})
	return s
}

func (s *system) addr() string { return s.srv.Addr().String() }

func (s *system) url(user string) string {
	return "nats://" + user + ":secret-of-" + user + "@" + s.addr()
}

func (s *system) cli() proc.CLI {
	return proc.CLI{Binary: binary, NATS: s.url("dormouse")}
}

// start starts the program and waits until it is ready.
func (s *system) start() {
	s.t.Helper()
	cmd := s.cli().Command(context.WithoutCancel(s.t.Context()), "serve", "--data", s.data, "--http", s.http, "--nats-url",
		s.url("dormouse"), "--max-delay", "200ms", "--linger", "20ms", "--lease", "2s", "--requeue-after", "3s",
		"--trim-delay", "3s", "--sync-interval", "1s",
		"--grace", "5s")
	if err := s.Start(cmd); err != nil {
		s.t.Fatal(err)
	}
	s.until("readiness", func() bool {
		_, err := proc.Get(s.t.Context(), "http://"+s.http+"/readyz")
		return err == nil
	})
}

// kill ends the program as a power switch does, and perhaps takes its disk.
func (s *system) kill(wipe bool) {
	s.t.Helper()
	if err := s.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if wipe {
		if err := os.RemoveAll(filepath.Join(s.data, "pebble")); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *system) until(what string, ok func() bool) {
	s.t.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-s.Ended():
			s.t.Fatalf("the program ended while waiting for %s", what)
		case <-deadline:
			_, err := proc.Get(s.t.Context(), "http://"+s.http+"/readyz")
			s.t.Fatalf("waited %s for %s; readiness: %v", patience, what, err)
		case <-tick.C:
		}
	}
}

func (s *system) run(args ...string) proc.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.cli().Run(ctx, "", args...)
}

// stored returns a message of the source stream.
func (s *system) stored(seq uint64) (publication, error) {
	m, err := jsapi.Get(context.Background(), s.js, wire.DefaultSource, seq)
	return publication{m.Subject, m.Header, m.Data}, err
}

// awaitArchived waits until the source stream is empty: all that was in it is archived, or rejected, and trimmed.
func (s *system) awaitArchived(bound time.Duration) {
	s.t.Helper()
	began := time.Now()
	s.until("everything to be archived", func() bool {
		stream, err := s.js.Stream(s.t.Context(), wire.DefaultSource)
		return err == nil && stream.CachedInfo().State.Msgs == 0
	})
	if took := time.Since(began); took > bound {
		s.t.Errorf("it took %s until everything was archived", took)
	}
}

// checkHonest reads the logs of the honest tenant and holds them against what it was acked.
func (s *system) checkHonest(honest *programtest.Oracle) {
	s.t.Helper()
	for _, log := range honest.Logs() {
		if err := honest.Compare(log, s.read(log), honest.Acked(log), true); err != nil {
			s.t.Errorf("an honest tenant: %v", err)
		}
	}
}

// checkHostile does the same for the hostile one, once everything is archived.
func (s *system) checkHostile(hostile *judge) (readable int) {
	s.t.Helper()
	read := make(map[uint64]string)
	for log := range hostile.logs() {
		for text := range strings.Lines(s.read(log)) {
			var e struct{ Seq uint64 }
			if err := json.Unmarshal([]byte(text), &e); err != nil || read[e.Seq] != "" {
				s.t.Errorf("%s: %q, %v", log, text, err)
			}
			read[e.Seq] = text
		}
	}
	readable, err := hostile.compare(read)
	if err != nil {
		s.t.Errorf("the hostile tenant: %v", err)
	}
	return readable
}

func (s *system) read(log string) string {
	s.t.Helper()
	out := s.run("read", log, "--output", "jsonl")
	if out.Code != 0 && !strings.Contains(out.Err, "ls'") { // of a log whose entries were all rejected there is nothing
		s.t.Errorf("dormouse read %q: exit %d, %s", log, out.Code, out.Err)
	}
	return out.Out
}

// watchRejected tells the judge of all that is rejected, until it is stopped: the stream keeps the newest only.
func (s *system) watchRejected(j *judge) (stop func()) {
	s.t.Helper()
	consumer, err := s.js.OrderedConsumer(s.t.Context(), wire.RejectedStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		s.t.Fatal(err)
	}
	watching, err := consumer.Consume(func(msg jetstream.Msg) {
		if err := j.tellRejected(&nats.Msg{Header: msg.Headers(), Data: msg.Data()}); err != nil {
			s.t.Error(err)
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return func() {
		s.until("what was rejected", func() bool {
			stream, err := s.js.Stream(s.t.Context(), wire.RejectedStream)
			return err == nil && j.rejectedMessages() >= stream.CachedInfo().State.LastSeq
		})
		watching.Stop()
		<-watching.Closed()
	}
}

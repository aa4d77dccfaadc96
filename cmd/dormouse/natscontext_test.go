package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"

	"dormouse/internal/natstest"
)

// natsPatience bounds waits for servers of tests.
const natsPatience = 20 * time.Second

// writeContext makes a context of the nats CLI below XDG_CONFIG_HOME.
func writeContext(t *testing.T, name, settings string) {
	t.Helper()
	folder := filepath.Join(os.Getenv("XDG_CONFIG_HOME"), "nats", "context")
	if err := errors.Join(os.MkdirAll(folder, 0o700),
		os.WriteFile(filepath.Join(folder, name+".json"), []byte(settings), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// startDomains starts a server with JetStream and a leaf node of it with a JetStream of its own, and returns clients of
// each one's JetStream, and the URL of the leaf node.
func startDomains(t *testing.T) (hub, leaf jetstream.JetStream, url string) {
	t.Helper()
	hubServer := natstest.Start(t, func(o *natsserver.Options) {
		o.ServerName, o.JetStreamDomain = "hub", "hub"
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", natsserver.RANDOM_PORT
	})
	if !hubServer.ReadyForConnections(natsPatience) {
		t.Fatal("the hub did not start")
	}
	leafServer := natstest.Start(t, func(o *natsserver.Options) {
		o.ServerName, o.JetStreamDomain = "leaf", "leaf"
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		o.LeafNode.Remotes = []*natsserver.RemoteLeafOpts{{URLs: leafURLs(t, hubServer)}}
	})
	if !leafServer.ReadyForConnections(natsPatience) {
		t.Fatal("the leaf node did not start")
	}
	for began := time.Now(); leafServer.NumLeafNodes() == 0 ||
		hubServer.NumLeafNodes() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > natsPatience {
			t.Fatal("the leaf node does not find its hub")
		}
	}
	_, hub = natstest.Dial(t, hubServer)
	_, leaf = natstest.Dial(t, leafServer)
	return hub, leaf, leafServer.ClientURL()
}

// TestContextSaysWhichJetStream: with a domain or a prefix of the API all commands use that JetStream, not the server's
// own.
func TestContextSaysWhichJetStream(t *testing.T) {
	for name, setting := range map[string]string{
		"domain": `"jetstream_domain":"hub"`, "prefix": `"jetstream_api_prefix":"$JS.hub.API"`,
		"prefix with its dot": `"jetstream_api_prefix":"$JS.hub.API."`,
	} {
		t.Run(name, func(t *testing.T) {
			hub, leaf, url := startDomains(t)
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			writeContext(t, "there", fmt.Sprintf(`{"url":%q,%s,"inbox_prefix":"_MINE"}`, url, setting))
			use := func(line ...string) []string { return append(line, "--nats-context", "there") }
			must := func(stdin string, line ...string) result {
				t.Helper()
				got := command(t.Context(), strings.NewReader(stdin), use(line...)...)
				if got.code != exitOK {
					t.Fatalf("%v: %+v", line, got)
				}
				return got
			}
			served := background(
				t,
				use(
					"serve",
					"--data",
					t.TempDir(),
					"--max-delay",
					"100ms",
					"--linger",
					"10ms",
					"--http",
					"127.0.0.1:0",
				)...)
			served.until("readiness", served.ready)
			must("", "provision")
			must("one\ntwo\n", "publish", "a.b")
			must("no entry\n", "publish", "a.b", "--prefix", "logs."+strings.Repeat("x", 300)) // too long
			served.until(
				"the archive to have it",
				func() bool { return strings.Contains(must("", "stat", "a.b").out, "archived   2 entries") },
			)
			if got := must("", "read", "a.b"); got.out != "one\ntwo\n" {
				t.Errorf("read %+v", got)
			}
			must("", "verify")
			if got := must("", "status", "--output", "json"); !strings.Contains(got.out, `"owned"`) {
				t.Errorf("status %s", got.out)
			}
			served.until("what is no entry to be put aside", func() bool {
				stream, err := hub.Stream(t.Context(), "DORMOUSE_REJECTED")
				return err == nil && stream.CachedInfo().State.Msgs == 1
			})
			served.end()
			if names := streamNames(t, leaf); len(names) != 0 {
				t.Errorf("the leaf node's own JetStream got %v", names)
			}
			if names := streamNames(t, hub); len(names) < 5 {
				t.Errorf("the hub has only %v", names)
			}
		})
	}
}

func streamNames(t *testing.T, js jetstream.JetStream) (names []string) {
	t.Helper()
	lister := js.StreamNames(t.Context())
	for name := range lister.Name() {
		names = append(names, name)
	}
	if lister.Err() != nil {
		t.Fatal(lister.Err())
	}
	return names
}

// TestContextIsHonouredOrRefused: each setting of a context is one that this program or the library honours, one that
// does not concern it, or it is refused by its name. A setting that a later library knows fails here.
func TestContextIsHonouredOrRefused(t *testing.T) {
	const neutral, honoured, refused = "neutral", "honoured", "refused"
	fate := map[string]string{
		"name": neutral, "description": neutral, "color_scheme": neutral, "jetstream_event_prefix": neutral,
		"url": honoured, "socks_proxy": honoured, "token": honoured, "user": honoured, "password": honoured,
		"creds": honoured, "nkey": honoured,
		"cert": honoured, "key": honoured, "ca": honoured, "tls_first": honoured,
		"jetstream_domain": honoured, "jetstream_api_prefix": honoured, "inbox_prefix": honoured,
		"nsc": refused, "user_jwt": refused, "windows_cert_store": refused,
		// of windows_cert_store
		"windows_cert_match_by": neutral, "windows_cert_match": neutral, "windows_ca_certs_match": neutral,
	}
	all, err := json.Marshal(natscontext.Settings{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]any
	if err := json.Unmarshal(all, &known); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for name := range known {
		switch fate[name] {
		case refused:
			writeContext(t, "x", fmt.Sprintf(`{"url":"nats://127.0.0.1:1",%q:"given"}`, name))
			got := command(t.Context(), nil, "ls", "--nats-context", "x")
			if said := strings.ReplaceAll(got.errors, " ", "_"); got.code == exitOK || !strings.Contains(said, name) {
				t.Errorf("%s: %+v", name, got)
			}
		case "":
			t.Errorf("what becomes of %s?", name)
		}
	}
	for _, settings := range []string{
		`{"jetstream_domain":"a","jetstream_api_prefix":"b"}`, `{"jetstream_domain":"a.b"}`, `{"jetstream_domain":"*"}`,
		`{"jetstream_api_prefix":"a b"}`,
		`{"jetstream_api_prefix":"a..b"}`, `{"inbox_prefix":"a b"}`, `{"inbox_prefix":"a."}`, `{"jetstream_api_prefix":"."}`,
		`{"cert":"/x"}`, `{"key":"/x"}`, `{"url":"nats://h:x"}`, `{"url":`,
	} {
		writeContext(t, "x", settings)
		if got := command(t.Context(), nil, "ls", "--nats-context", "x"); got.code != exitUsage ||
			!strings.Contains(got.errors, `the NATS context "x"`) {
			t.Errorf("%s: %+v", settings, got)
		}
	}
	if got := command(t.Context(), nil, "ls", "--nats-context", "none"); got.code != exitFailed ||
		!strings.Contains(got.errors, "nats context ls") {
		t.Errorf("a context that is not there: %+v", got)
	}
}

// TestWrongDomain: what names no JetStream is told from one that is away, by commands and by a server that is told to
// end while it waits for it.
func TestWrongDomain(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1",
			natsserver.RANDOM_PORT
	})
	writeContext(t, "x", fmt.Sprintf(`{"url":%q,"jetstream_domain":"wrong"}`, srv.ClientURL()))
	for _, line := range [][]string{{"ls"}, {"status"}, {"read", "a.b"}} {
		got := command(t.Context(), strings.NewReader("one\n"), append(line, "--nats-context", "x")...)
		if got.code != exitFailed || !strings.Contains(got.errors, "jetstream_domain") {
			t.Errorf("%v: %+v", line, got)
		}
	}
	served := background(t, "serve", "--nats-context", "x", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--archive",
		"mem://")
	served.until("what it waits for", func() bool { return strings.Contains(served.errors.String(), "jetstream_domain") })
	served.stop()
	<-served.done
	if log := served.errors.String(); served.code != exitOK || !strings.Contains(log, "waited_for") ||
		!strings.Contains(log, "no responders") {
		t.Errorf("exit %d\n%s", served.code, log)
	}
}

func leafURLs(t *testing.T, hub *natsserver.Server) []*url.URL {
	t.Helper()
	varz, err := hub.Varz(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(fmt.Sprintf("nats://127.0.0.1:%d", varz.LeafNode.Port))
	if err != nil {
		t.Fatal(err)
	}
	return []*url.URL{u}
}

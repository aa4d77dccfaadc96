// Package deploy holds what is needed to run Dormouse elsewhere, and tests that load it.
package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/jsapi"
	"dormouse/internal/policy"
	"dormouse/internal/streamreader"
	"dormouse/internal/topology"
	"dormouse/internal/wire"
	"dormouse/store/client"
	"dormouse/store/policies"
)

// start runs a real server on the configuration as it is shipped; only its ports and its folder are the test's.
func start(t *testing.T) *server.Server {
	t.Helper()
	return startOn(t, "nats/nats.conf")
}

func startOn(t *testing.T, config string) *server.Server {
	t.Helper()
	for _, name := range []string{"DORMOUSE", "READER", "ACME", "GLOBEX", "SYS"} {
		t.Setenv(name+"_PASSWORD", "secret-of-"+strings.ToLower(name))
	}
	options, err := server.ProcessConfigFile(config)
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
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return srv
}

// user is a connected user and the violations that the server has told it of.
type user struct {
	t          *testing.T
	nc         *nats.Conn
	js         jetstream.JetStream
	violations chan error
}

func connect(t *testing.T, srv *server.Server, name string) *user {
	t.Helper()
	u := &user{t: t, violations: make(chan error, 64)}
	var err error
	u.nc, err = nats.Connect(srv.ClientURL(), nats.UserInfo(name, "secret-of-"+name),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { u.violations <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.nc.Close)
	if u.js, err = jetstream.New(u.nc); err != nil {
		t.Fatal(err)
	}
	return u
}

// publish returns the stream's answer to one message.
func (u *user) publish(subject string) error {
	ctx, cancel := context.WithTimeout(u.t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := u.js.Publish(ctx, subject, []byte("x"), jetstream.WithRetryAttempts(0))
	return err
}

func TestTenantCanPublishBelowItsOwnSubjectOnly(t *testing.T) {
	srv := start(t)
	dormouse, acme := connect(t, srv, "dormouse"), connect(t, srv, "acme")
	if _, err := topology.Ensure(t.Context(), dormouse.js,
		topology.Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}); err != nil {
		t.Fatalf("dormouse cannot make its streams: %v", err)
	}
	everything, err := dormouse.nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := dormouse.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"logs.acme.web", "logs.acme.web.nginx"} {
		if err := acme.publish(subject); err != nil {
			t.Errorf("acme cannot publish to %s: %v", subject, err)
		}
	}
	api := func(name string) string { return "$JS.API." + name }
	for _, subject := range []string{
		"logs.globex.web", "logs.acme", "logs.acme2.web", "logs.web",
		wire.SyncSubject(0), wire.ManifestSubject(0), wire.RejectedSubject(0),
		wire.OwnerSubject(0, 1, wire.OpCommit), wire.OwnerSubject(0, 1, wire.OpDrain),
		wire.OwnerSubject(0, 1, wire.OpSegments), wire.OwnerSubject(0, 1, wire.OpReplace), wire.MergeSubject(0),
		"$KV.DORMOUSE_LEASES.0", "$KV.DORMOUSE_POLICIES.acme.=3E",
		api("INFO"), api("STREAM.LIST"), api("STREAM.INFO.LOGS"), api("STREAM.DELETE.LOGS"),
		api("STREAM.PURGE.LOGS"),
		api("STREAM.MSG.GET.LOGS"), api("DIRECT.GET.LOGS"), api("CONSUMER.CREATE.LOGS"),
		api("CONSUMER.MSG.NEXT.DORMOUSE_SYNCQUEUE.workers"), api("CONSUMER.MSG.NEXT.DORMOUSE_MERGES.workers"),
	} {
		if err := acme.publish(subject); err == nil {
			t.Errorf("acme was answered on %s", subject)
		}
	}
	// A reply subject is no way around it either: the ack comes back to the tenant's account, whatever it is called.
	for _, reply := range []string{"logs.globex.web", "dormouse.sync.0"} {
		if err := acme.nc.PublishRequest("logs.acme.web", reply, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	overheard, err := acme.nc.SubscribeSync("logs.>")
	if err != nil {
		t.Fatal(err)
	}
	globex := connect(t, srv, "globex")
	if err := globex.publish("logs.globex.web"); err != nil {
		t.Fatal(err)
	}
	for { // its own misdirected acks come back to acme, the entries of others do not
		msg, err := overheard.NextMsg(200 * time.Millisecond)
		if err != nil {
			break
		}
		if !strings.Contains(string(msg.Data), `"stream":"LOGS"`) {
			t.Errorf("acme overheard %q on %s", msg.Data, msg.Subject)
		}
	}
	seen := make(map[string]int)
	for {
		msg, err := everything.NextMsg(200 * time.Millisecond)
		if err != nil {
			break
		}
		if strings.HasPrefix(msg.Subject, "logs.") || strings.HasPrefix(msg.Subject, "dormouse.") {
			seen[msg.Subject]++
		}
	}
	want := map[string]int{"logs.acme.web": 3, "logs.acme.web.nginx": 1, "logs.globex.web": 1}
	for subject, n := range seen {
		if n != want[subject] {
			t.Errorf("%d messages reached %s, want %d", n, subject, want[subject])
		}
	}
	if len(seen) != len(want) {
		t.Errorf("messages reached %v, want %v", seen, want)
	}
}

func TestReaderChangesNothing(t *testing.T) {
	srv := start(t)
	dormouse, reader := connect(t, srv, "dormouse"), connect(t, srv, "reader")
	if _, err := topology.Ensure(t.Context(), dormouse.js,
		topology.Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := dormouse.publish("logs.acme.web"); err != nil {
		t.Fatal(err)
	}
	if sources, err := topology.Sources(t.Context(), reader.js); err != nil || len(sources) != 1 {
		t.Fatalf("the reader finds %v, %v", sources, err)
	}
	consumer, err := streamreader.Open(t.Context(), reader.js, wire.DefaultSource, "logs.acme.web", 1,
		streamreader.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := consumer.Next(wait); err != nil {
		t.Errorf("the reader cannot read: %v", err)
	}
	consumer.Stop()
	if _, err := jsapi.GetLast(t.Context(), reader.js, wire.DefaultSource, "logs.acme.web"); err != nil {
		t.Errorf("the reader cannot look for a log: %v", err)
	}
	if len(reader.violations) > 0 {
		t.Errorf("reading violates %v", <-reader.violations)
	}
	for _, subject := range []string{
		"logs.acme.web", wire.SyncSubject(0), wire.ManifestSubject(0), wire.OwnerSubject(0, 1, wire.OpCommit),
		wire.OwnerSubject(0, 1, wire.OpDrain), wire.OwnerSubject(0, 1, wire.OpReplace), wire.MergeSubject(0),
		"$KV.DORMOUSE_LEASES.0", "$KV.DORMOUSE_POLICIES.acme.=3E",
		"$JS.API.STREAM.DELETE.LOGS", "$JS.API.STREAM.PURGE.LOGS",
		"$JS.API.CONSUMER.MSG.NEXT.DORMOUSE_SYNCQUEUE.workers", "$JS.API.CONSUMER.MSG.NEXT.DORMOUSE_MERGES.workers",
	} {
		if err := reader.publish(subject); err == nil {
			t.Errorf("the reader was answered on %s", subject)
		}
		select {
		case err := <-reader.violations:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		case <-time.After(2 * time.Second):
			t.Errorf("publishing to %s was not refused", subject)
		}
	}
}

// TestFlagsExist checks that the environment variables and flags in the shipped files are flags of the program.
func TestFlagsExist(t *testing.T) {
	help, err := exec.Command(binary, "serve", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	for _, file := range []string{"compose.yaml", "Dockerfile", "systemd/dormouse.service"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var flags []string
		for _, m := range regexp.MustCompile(`\bDORMOUSE_([A-Z_]+)(?::|=)`).FindAllStringSubmatch(string(text), -1) {
			flags = append(flags, strings.ToLower(strings.ReplaceAll(m[1], "_", "-")))
		}
		for _, m := range regexp.MustCompile(`dormouse serve((?: --[a-z-]+ \S+)+)`).FindAllStringSubmatch(string(text), -1) {
			for _, f := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(m[1], -1) {
				flags = append(flags, f[1])
			}
		}
		if len(flags) == 0 {
			t.Errorf("found no flag in %s", file)
		}
		for _, f := range flags {
			if !strings.Contains(string(help), "--"+f+" ") {
				t.Errorf("%s uses --%s, which serve does not have", file, f)
			}
		}
	}
}

// TestReaderSeesTheStatus: also of what nobody answers for, and without asking for more than it may.
func TestReaderSeesTheStatus(t *testing.T) {
	srv := start(t)
	dormouse, asks := connect(t, srv, "dormouse"), connect(t, srv, "reader")
	if _, err := topology.Ensure(t.Context(), dormouse.js,
		topology.Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	kv, err := dormouse.js.KeyValue(t.Context(), wire.LeaseBucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{wire.LeaseKey(0), wire.NodeKeys + "gone"} {
		if _, err := kv.Put(t.Context(), key, []byte(`{"node":"gone","host":"web-1"}`)); err != nil {
			t.Fatal(err)
		}
	}
	status, err := client.New(asks.nc, asks.js).Status(t.Context())
	if err != nil || len(status.Silent) != 1 || status.Silent[0].Name != "web-1/gone" ||
		status.Shards[0].Name != "web-1/gone" {
		t.Errorf("the reader is told %+v, %v", status, err)
	}
	select {
	case err := <-asks.violations:
		t.Errorf("asking violates %v", err)
	default:
	}
}

// TestReaderSeesPolicies, however many, and sets none.
func TestReaderSeesPolicies(t *testing.T) {
	srv := start(t)
	dormouse, reader := connect(t, srv, "dormouse"), connect(t, srv, "reader")
	if _, err := topology.Ensure(t.Context(), dormouse.js,
		topology.Config{RequeueAfter: time.Minute, Lease: 10 * time.Second}); err != nil {
		t.Fatal(err)
	}
	const many = 3000
	writes, err := policies.Open(t.Context(), dormouse.js)
	if err != nil {
		t.Fatal(err)
	}
	for i := range many {
		rule := policy.Rule{Pattern: policy.Pattern(fmt.Sprintf("t%d.>", i)), Policy: policy.Policy{Rate: 1}}
		if err := writes.Set(t.Context(), rule, strings.Repeat("x", 200), 0); err != nil {
			t.Fatal(err)
		}
	}
	reads, err := policies.Open(t.Context(), reader.js)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := reads.List(t.Context()); err != nil || len(all) != many {
		t.Errorf("the reader sees %d policies, %v", len(all), err)
	}
	select {
	case err := <-reader.violations:
		t.Errorf("reading violates %v", err)
	case <-time.After(100 * time.Millisecond):
	}
}

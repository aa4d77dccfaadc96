package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"dormouse/internal/natstest"
)

// guarded is a server with users, whose passwords and permissions can change while it runs.
type guarded struct {
	t       *testing.T
	server  *natsserver.Server
	options *natsserver.Options
}

func startGuarded(t *testing.T, users ...*natsserver.User) *guarded {
	t.Helper()
	g := &guarded{t: t}
	g.server = natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		o.Users, g.options = users, o
	})
	if !g.server.ReadyForConnections(natsPatience) {
		t.Fatal("the NATS server did not start")
	}
	g.options.Port = g.server.Addr().(*net.TCPAddr).Port // a reload must not change it
	return g
}

func (g *guarded) reload(users ...*natsserver.User) {
	g.t.Helper()
	changed := g.options.Clone()
	changed.Users = users
	if err := g.server.ReloadOptions(changed); err != nil {
		g.t.Fatal(err)
	}
}

// refused counts the logins of clients with a name that were refused.
func (g *guarded) refused(name string) (count int) {
	g.t.Helper()
	closed, err := g.server.Connz(&natsserver.ConnzOptions{State: natsserver.ConnClosed})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, conn := range closed.Conns {
		if conn.Name == name && conn.Reason == natsserver.AuthenticationViolation.String() {
			count++
		}
	}
	return count
}

func (g *guarded) url(user string) string {
	return fmt.Sprintf("nats://%s:%s@%s", user, "pw", g.server.Addr())
}

func login(name, password string) *natsserver.User {
	return &natsserver.User{Username: name, Password: password}
}

// may is a user that may publish and subscribe to some subjects only.
func may(name string, publish, subscribe []string) *natsserver.User {
	u := login(name, "pw")
	u.Permissions = &natsserver.Permissions{
		Publish: &natsserver.SubjectPermission{Allow: publish}, Subscribe: &natsserver.SubjectPermission{Allow: subscribe}}
	return u
}

// TestRefusedLoginPasses: credentials that are refused for a while, as when they are rotated or an account is loaded
// again, keep nobody away for good.
func TestRefusedLoginPasses(t *testing.T) {
	g := startGuarded(t, login("u", "pw"), login("admin", "pw"))
	use := func(line ...string) []string { return append(line, "--nats-url", g.url("u")) }
	served := background(
		t,
		use("serve", "--data", t.TempDir(), "--max-delay", "100ms", "--linger", "10ms", "--http", "127.0.0.1:0")...)
	served.until("readiness", served.ready)
	publish := func(text string) {
		t.Helper()
		if got := command(t.Context(), strings.NewReader(text), use("publish", "a.b")...); got.code != exitOK {
			t.Fatalf("publish: %+v", got)
		}
	}
	publish("before\n")
	follower := background(t, use("read", "a.b", "--follow")...)
	follower.until("the first entry", func() bool { return follower.out.String() == "before\n" })

	g.reload(login("u", "other"), login("admin", "pw"))
	served.until("the logins to be refused", func() bool { // twice, the library takes that for an answer
		return g.refused("dormouse serve") > 2 && g.refused("dormouse read") > 2
	})
	if served.ready() {
		t.Error("it is ready without NATS")
	}
	g.reload(login("u", "pw"), login("admin", "pw"))
	served.until("readiness again", served.ready)
	publish("after\n")
	follower.until("the next entry", func() bool { return follower.out.String() == "before\nafter\n" })
	if code := follower.end(); code != exitOK || follower.errors.String() != "" {
		t.Errorf("the follower exits %d, and says %q", code, follower.errors.String())
	}
	if code := served.end(); code != exitOK {
		t.Errorf("the server exits %d", code)
	}
}

// interjector is a way to a NATS server on which a test can say something in the server's name.
type interjector struct {
	listener net.Listener
	mu       sync.Mutex
	clients  []net.Conn
}

func interject(t *testing.T, addr string) *interjector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := &interjector{listener: l}
	var joined sync.WaitGroup
	joined.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			i.mu.Lock()
			i.clients = append(i.clients, client)
			i.mu.Unlock()
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from) // until one of them ends
				to.Close()
				from.Close()
			}
			joined.Go(func() { pass(upstream, client) })
			joined.Go(func() { pass(client, upstream) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		i.mu.Lock()
		for _, client := range i.clients {
			client.Close()
		}
		i.mu.Unlock()
		joined.Wait()
	})
	return i
}

// say tells all clients something, between two of the server's messages if those are idle.
func (i *interjector) say(t *testing.T, text string) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, client := range i.clients {
		if _, err := io.WriteString(client, text); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	}
}

// TestConnectionClosedForGood: on an error that it does not know the library gives a connection up. A process that
// lives on without NATS would be of no use to anybody.
func TestConnectionClosedForGood(t *testing.T) {
	g := startGuarded(t, login("u", "pw"))
	way := interject(t, g.server.Addr().String())
	url := "nats://u:pw@" + way.listener.Addr().String()
	served := background(t, "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--nats-url", url)
	served.until("readiness", served.ready)
	if got := command(t.Context(), strings.NewReader("one\n"), "publish", "a.b", "--nats-url", url); got.code != exitOK {
		t.Fatalf("publish: %+v", got)
	}
	follower := background(t, "read", "a.b", "--follow", "--nats-url", url)
	follower.until("the first entry", func() bool { return follower.out.String() == "one\n" })
	way.say(t, "-ERR 'Something Odd'\r\n")
	for name, r := range map[string]*running{"serve": served, "read --follow": follower} {
		if code := r.wait(); code != exitFailed || !strings.Contains(r.errors.String(), "closed for good") ||
			!strings.Contains(r.errors.String(), "something odd") &&
				!strings.Contains(r.errors.String(), "Something Odd") {
			t.Errorf("%s exits %d:\n%s", name, code, r.errors.String())
		}
	}
}

// TestRefusedSubjectEndsAtOnce: what NATS does not permit is not waited for, and the permission that is missing is
// named.
func TestRefusedSubjectEndsAtOnce(t *testing.T) {
	inbox := []string{"_INBOX.>"}
	g := startGuarded(
		t,
		login("all", "pw"),
		may("none", []string{"other"}, inbox),
		may("deaf", []string{">"}, []string{"other"}),
		may("half", []string{"$JS.API.STREAM.>", "$JS.API.INFO"}, inbox),
	)
	if got := command(t.Context(), nil, "provision", "--nats-url", g.url("all")); got.code != exitOK {
		t.Fatalf("provision: %+v", got)
	}
	for _, line := range everyCommand(t) {
		if line[0] == "bench" {
			continue // works on a NATS without Dormouse
		}
		for who, names := range map[string]string{"none": `publish to "`, "deaf": `subscribe to "_INBOX.`} {
			began := time.Now()
			got := command(t.Context(), strings.NewReader("x\n"), append(line, "--nats-url", g.url(who))...)
			if took := time.Since(began); got.code != exitFailed || !strings.Contains(got.errors, names) ||
				took > 3*time.Second || strings.Contains(got.errors, "full") ||
				line[0] != "serve" && strings.Count(got.errors, "\n") != 1 {
				t.Errorf("%s as %s, after %s: %+v", line[0], who, took, got)
			}
		}
	}
	got := command(t.Context(), strings.NewReader("x\n"), "publish", "a.b", "--nats-url", g.url("half"))
	if !strings.Contains(got.errors, `line 1 was not stored`) || !strings.Contains(got.errors, `"logs.a.b"`) {
		t.Errorf("publish does not name what it may not: %+v", got)
	}
}

// TestServerThatMayNotTellsSo: a permission that a serving process loses shows where one looks.
func TestServerThatMayNotTellsSo(t *testing.T) {
	g := startGuarded(t, login("u", "pw"))
	served := background(
		t,
		"serve",
		"--data",
		t.TempDir(),
		"--http",
		"127.0.0.1:0",
		"--lease",
		"1s",
		"--nats-url",
		g.url("u"),
	)
	served.until("readiness", served.ready)
	reduced := login("u", "pw")
	reduced.Permissions = &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"$KV.>"}}}
	g.reload(reduced)
	served.until("readiness to say so", func() bool {
		_, page := served.page("/readyz")
		return strings.Contains(page, `publish to "$KV.`)
	})
	served.end()
}

// TestTenantIsToldSo: an account without JetStream is not waited for.
func TestTenantIsToldSo(t *testing.T) {
	srv := natstest.Start(t, func(o *natsserver.Options) {
		o.DontListen, o.Host, o.Port = false, "127.0.0.1", natsserver.RANDOM_PORT
		tenant := natsserver.NewAccount("TENANT")
		o.Accounts = []*natsserver.Account{tenant}
		o.Users = []*natsserver.User{{Username: "u", Password: "pw", Account: tenant}}
	})
	if !srv.ReadyForConnections(natsPatience) {
		t.Fatal("the NATS server did not start")
	}
	for _, line := range [][]string{{"provision"}, {"ls"}, {"status"}, {"read", "a.b"}, {"stat", "a.b"}, {"verify"}} {
		began := time.Now()
		got := command(t.Context(), nil, append(line, "--nats-url", fmt.Sprintf("nats://u:pw@%s", srv.Addr()))...)
		if took := time.Since(began); got.code != exitFailed || !strings.Contains(got.errors, "tenant") ||
			took > 3*time.Second {
			t.Errorf("%v after %s: %+v", line, took, got)
		}
	}
}

func TestWhatNATSDoesNotPermit(t *testing.T) {
	for text, want := range map[string]string{
		`Permissions Violation for Publish to "logs.a.b"`:                          `publish to "logs.a.b"`,
		`permissions violation for subscription to "_INBOX.x.*"`:                   `subscribe to "_INBOX.x.*"`,
		`Permissions Violation for Subscription to "x" using queue "q"`:            `subscribe to "x"`,
		"Permissions Violation \x1b[31m":                                           `\x1b[31m`,
		`Permissions Violation for Publish to "$JS.API.CONSUMER.DELETE.LOGS.x"`:    "",
		`Permissions Violation for Publish to "$JS.hub.API.CONSUMER.DELETE.LOGS"x`: "",
	} {
		err := refusalOf(fmt.Errorf("%w: %s", nats.ErrPermissionViolation, text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := refusalOf(nats.ErrSlowConsumer); err != nil {
		t.Error(err)
	}
}

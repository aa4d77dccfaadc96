package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
)

// TestDataDirectoryBelongsToOneProcess: as long as that lives, whether or not its database is open, and no longer.
func TestDataDirectoryBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	outside := startOutsideNATS(t)
	first := outside.instance(fast...)
	first.start()
	for name, second := range map[string]*instance{"outside NATS": outside.instance(fast...),
		"embedded NATS": newInstance(t, fast...)} {
		second.data = first.data
		second.launch()
		second.untilEnded()
		code, says := second.wait(), second.Output()
		if pid := strconv.Itoa(first.pid(t)); code != 1 || !strings.Contains(says, "in use by another process") ||
			!strings.Contains(says, first.data) ||
			!strings.Contains(says, pid) ||
			!strings.Contains(says, "--data") {
			t.Errorf("%s: the second exits %d:\n%s", name, code, says)
		}
	}
	worker := outside.instance(append([]string{"--roles", "worker"}, fast...)...)
	worker.data = first.data // which it does not use
	worker.start()
	if !first.ready() {
		t.Error("the first is not ready any more")
	}
	first.kill()
	next := outside.instance(fast...)
	next.data = first.data
	next.start()
}

// pid is the ID of the process, which its lock says.
func (in *instance) pid(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(in.data, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Signal(syscall.Signal(0)); err != nil || pid == os.Getpid() {
		t.Fatalf("process %d: %v", pid, err)
	}
	return pid
}

// TestNoPageHasASecret looks at all that a process serves and logs, with secrets in its arguments.
func TestNoPageHasASecret(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	for _, login := range []string{"u:" + secret, secret} {
		outside := &outsideNATS{t: t, addr: programtest.FreeAddr(t), dir: t.TempDir()}
		options := func() *server.Options {
			o := outside.options()
			if o.Authorization = secret; login != secret {
				o.Authorization, o.Username, o.Password = "", "u", secret
			}
			return o
		}
		outside.run(options())
		in := newInstance(
			t,
			append([]string{"--nats-url", "nats://" + login + "@" + outside.addr, "--log-level", "debug"}, fast...)...)
		if err := in.Start(exec.Command(in.program, append([]string{"serve", "--data", in.data, "--http", in.http},
			in.args...)...)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(in.kill)
		in.until("readiness", in.ready)
		paths := []string{
			"/",
			"/livez",
			"/readyz",
			"/metrics",
			"/nothing",
			"/debug/vars",
			"/debug/pprof/",
			"/debug/pprof/cmdline",
			"/debug/pprof/symbol",
			"/debug/pprof/trace?seconds=0.1",
			"/debug/pprof/profile?seconds=1",
		}
		for _, profile := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
			paths = append(paths, "/debug/pprof/"+profile+"?debug=1")
		}
		look := func() {
			for _, path := range paths {
				response, err := http.Get("http://" + in.http + path)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || strings.Contains(string(body), secret) {
					t.Errorf("%s: %v, %q", path, err, body)
				}
				if path == "/debug/pprof/cmdline" &&
					!strings.Contains(string(body), "--nats-url\x00nats://"+outside.addr) {
					t.Errorf("the command line is %q", body)
				}
			}
		}
		look()
		outside.stop() // now the pages say what is wrong
		in.until("it to notice", func() bool { return !in.ready() })
		look()
		outside.run(options())
		in.until("readiness again", in.ready)
		if err := in.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		in.untilEnded()
		if code := in.wait(); code != 0 || strings.Contains(in.Output(), secret) ||
			!strings.Contains(in.Output(), "reconnected") {
			t.Errorf("exit %d:\n%s", code, in.Output())
		}
		outside.stop()
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestFullOutput: commands whose output goes to a full disk say so once and fail, and one whose reader has seen enough
// ends as commands do.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	var lines strings.Builder
	for n := range 20_000 {
		fmt.Fprintln(&lines, "line", n)
	}
	in.must(lines.String(), "publish", "a.b")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, line := range []string{"ls", "ls --output jsonl", "stat a.b", "status", "read a.b", "read a.b --follow",
		"verify", "publish a.c", "provision", "--help", "version", "completion bash"} {
		var said strings.Builder
		cmd := in.cli().Command(t.Context(), strings.Fields(line)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("x\n"), full, &said
		if code := proc.ExitCode(cmd.Run()); code != 1 ||
			strings.Count(said.String(), "no space left on device") != 1 ||
			strings.Count(said.String(), "\n") != 1 {
			t.Errorf("%s: exit %d, %q", line, code, said.String())
		}
	}
	head := exec.CommandContext(t.Context(), "sh", "-c", `"$0" read a.b | head -n 1`, in.program)
	head.Env = append(os.Environ(), "DORMOUSE_NATS_URL=nats://"+in.nats)
	if out, err := head.CombinedOutput(); err != nil || string(out) != "line 0\n" {
		t.Errorf("head: %v, %q", err, out)
	}
}

// TestFollowerIsPatient: one that is stopped for a while, whose reader takes nothing, or whose login is refused for a
// while goes on where it was, and has nothing to say about it.
func TestFollowerIsPatient(t *testing.T) {
	t.Parallel()
	outside := &outsideNATS{t: t, addr: programtest.FreeAddr(t), dir: t.TempDir()}
	start := func(password string) {
		o := outside.options()
		o.Username, o.Password = "u", password
		outside.run(o)
	}
	start("pw")
	in := outside.instance(fast...)
	in.nats = "u:pw@" + outside.addr
	in.start()
	in.must("first\n", "publish", "a.b")
	cmd := in.cli().Command(t.Context(), "read", "a.b", "--follow")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(out, got); err != nil || string(got) != want {
			t.Fatalf("%v, %.100q, want %.100q; it says %s", err, got, want, said.String())
		}
	}
	signal := func(s os.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	expect("first\n")
	signal(syscall.SIGSTOP)
	lines := strings.Repeat(strings.Repeat("x", 1000)+"\n", 5000) // more than a pipe holds
	in.must(lines, "publish", "a.b")
	signal(syscall.SIGCONT)
	in.must(lines, "publish", "a.b") // meanwhile nobody reads the pipe
	expect(lines + lines)

	outside.stop()
	start("other")
	in.until("the follower's login to be refused", func() bool { return outside.refusedLogins(t, "dormouse read") > 2 })
	outside.stop()
	start("pw")
	in.until("readiness again", in.ready)
	in.must("last\n", "publish", "a.b")
	expect("last\n")
	signal(os.Interrupt)
	if code := proc.ExitCode(cmd.Wait()); code != 0 || said.String() != "" {
		t.Errorf("exit %d, %q", code, said.String())
	}
	if code := in.stop(); code != 0 {
		t.Errorf("the server exits %d:\n%s", code, in.Tail())
	}
	outside.stop()
}

// refusedLogins counts those of clients with a name.
func (o *outsideNATS) refusedLogins(t *testing.T, name string) (count int) {
	t.Helper()
	closed, err := o.server.Connz(&server.ConnzOptions{State: server.ConnClosed})
	if err != nil {
		t.Fatal(err)
	}
	for _, conn := range closed.Conns {
		if conn.Name == name && conn.Reason == server.AuthenticationViolation.String() {
			count++
		}
	}
	return count
}

// limited starts the process with at most so many open files.
func (in *instance) limited(files int) *instance {
	in.t.Helper()
	args := []string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), in.program,
		"serve", "--data", in.data, "--http", in.http, "--nats-listen", in.nats}
	if err := in.Start(exec.Command("sh", append(args, in.args...)...)); err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(in.kill)
	in.until("readiness", in.ready)
	return in
}

// crowd opens connections to addr that say hello and rest, each when the one before has had an answer of some kind, or
// none within wait.
func crowd(t *testing.T, addr string, size int, hello string, wait time.Duration) {
	t.Helper()
	for range size {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, hello) // one that is refused is closed
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 1)) // and others wait
	}
}

// TestMoreClientsThanFiles: connections are refused, or wait, before they take the files that JetStream and the archive
// need.
func TestMoreClientsThanFiles(t *testing.T) {
	const files = 256
	nats := func(in *instance) { crowd(t, in.nats, files+50, "CONNECT {\"verbose\":false}\r\nPING\r\n", patience) }
	http := func(in *instance) {
		crowd(t, in.http, files+50, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 5*time.Millisecond)
	}
	for name, come := range map[string]func(*instance){"NATS": nats, "HTTP": http, "both": func(in *instance) {
		http(in)
		nats(in)
	}} {
		t.Run(name, func(t *testing.T) { archivesIn(t, newInstance(t, fast...).limited(files), come) })
	}
}

// archivesIn publishes when a crowd has come, and waits for the archive, which is in new files, to have it.
func archivesIn(t *testing.T, in *instance, come func(*instance)) {
	t.Helper()
	publisher, err := nats.Connect("nats://" + in.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	objects := func() int {
		names, err := filepath.Glob(filepath.Join(in.data, "archive", "0", "*.sst"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	come(in)
	for n := range 5 {
		before := objects()
		reply, err := publisher.Request(fmt.Sprintf("logs.a.b%d", n), []byte("x"), patience)
		if err != nil || !strings.Contains(string(reply.Data), `"seq"`) {
			t.Fatalf("entry %d: %v\n%s", n, err, in.Tail())
		}
		in.until("the archive to grow", func() bool { return objects() > before })
	}
	if lines := strings.Count(in.Output(), "\n"); lines > 300 {
		t.Errorf("%d lines in the log:\n%s", lines, in.Tail())
	}
}

// TestOutOfFiles: when JetStream could not open a file once it takes nothing more into that stream. The process ends
// and says what to do, instead of refusing everybody for ever.
func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).limited(256)
	in.must("one\n", "publish", "a.b")
	// Streams take files too, as many as somebody makes, and no number of connections bounds that.
	nc, err := nats.Connect("nats://" + in.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for n := 0; ctx.Err() == nil; n++ {
			name := fmt.Sprintf("S%d", n)
			_, _ = nc.Request(
				"$JS.API.STREAM.CREATE."+name,
				fmt.Appendf(nil, `{"name":%q,"subjects":[%q],"storage":"file","retention":"limits"}`, name, "x."+name),
				time.Second,
			)
			_, _ = nc.Request("x."+name, []byte("x"), time.Second)
		}
	}()
	in.untilEnded()
	cancel()
	if code := in.wait(); code != 1 || !strings.Contains(in.Output(), "too many open files") ||
		!strings.Contains(in.Output(), "LimitNOFILE") {
		t.Errorf("exit %d:\n%s", code, in.Tail())
	}
	if lines := strings.Count(in.Output(), "\n"); lines > 1000 {
		t.Errorf("%d lines in the log", lines)
	}
	in.start() // without the limit
	if got := in.must("", "read", "a.b"); got != "one\n" {
		t.Errorf("read %q", got)
	}
}

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"
)

// lockedBuffer may be read while a command writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running is a command that runs in this process until it is ended.
type running struct {
	t           *testing.T
	out, errors lockedBuffer
	stop        context.CancelFunc
	done        chan struct{}
	code        int // valid after done
}

// background starts a command.
func background(t *testing.T, line ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.code = run(ctx, line, bytes.NewReader(nil), &r.out, &r.errors)
	}()
	t.Cleanup(func() { stop(); <-r.done; http.DefaultClient.CloseIdleConnections() })
	return r
}

// until polls a condition; a command that has ended meanwhile fails the test.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !ok(); {
		select {
		case <-r.done:
			r.t.Fatalf("it ended with %d while waiting for %s:\n%s", r.code, what, r.errors.String())
		case <-tick.C:
		}
		if time.Since(began) > natsPatience {
			r.t.Fatalf("waited %s for %s:\n%s%s", natsPatience, what, r.out.String(), r.errors.String())
		}
	}
}

// What a server logs of its addresses.
var (
	httpAddress = regexp.MustCompile(` http=(\S+)`)
	natsAddress = regexp.MustCompile(` url=(nats://\S+)`)
)

// page returns a page of a server's HTTP, "" while there is none.
func (r *running) page(path string) (code int, body string) {
	found := httpAddress.FindStringSubmatch(r.errors.String())
	if found == nil {
		return 0, ""
	}
	response, err := http.Get("http://" + found[1] + path)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, ""
	}
	return response.StatusCode, string(text)
}

func (r *running) ready() bool {
	code, _ := r.page("/readyz")
	return code == http.StatusOK
}

// end interrupts the command and returns its exit code.
func (r *running) end() int {
	r.stop()
	return r.wait()
}

// wait waits for the command to end by itself.
func (r *running) wait() int {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(natsPatience):
		r.t.Fatalf("it does not end:\n%s", r.errors.String())
	}
	return r.code
}

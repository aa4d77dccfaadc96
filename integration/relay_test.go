package integration

import (
	"net"
	"sync"
	"testing"
	"time"
)

// relayMode is what a relay does with connections, those that it has included.
type relayMode int

const (
	passes  relayMode = iota // bytes go through
	refuses                  // connections are closed
	hangs                    // connections stay, and nothing comes through
)

// relay is a TCP relay that can be broken.
type relay struct {
	listener net.Listener
	target   string
	joined   sync.WaitGroup

	mu struct {
		sync.Mutex
		mode  relayMode
		conns map[net.Conn]bool
	}
}

func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target}
	r.mu.conns = make(map[net.Conn]bool)
	r.joined.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.set(refuses)
		r.joined.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// set changes the mode and closes the connections there are, unless they are to hang.
func (r *relay) set(mode relayMode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.mode = mode
	if mode == hangs {
		return
	}
	for c := range r.mu.conns {
		_ = c.Close()
	}
}

func (r *relay) mode() relayMode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.mode
}

// keep notes a connection for set to close; false if it is closed already.
func (r *relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.mode == refuses {
		_ = c.Close()
		return false
	}
	r.mu.conns[c] = true
	return true
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.conns, c)
	_ = c.Close()
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if !r.keep(client) || !r.keep(server) {
			_, _ = client.Close(), server.Close()
			continue
		}
		r.joined.Go(func() { r.copy(server, client) })
		r.joined.Go(func() { r.copy(client, server) })
	}
}

// copy passes bytes on until an end closes. What arrives while the relay hangs is swallowed.
func (r *relay) copy(to, from net.Conn) {
	defer r.drop(to)
	defer r.drop(from)
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && r.mode() == passes {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// poll waits for a condition of something that is no instance.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %s for %s", patience, what)
		case <-tick.C:
		}
	}
}

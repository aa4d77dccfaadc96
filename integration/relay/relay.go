// Package relay is a TCP relay that tests put between two parts of a system, to cut the network there.
package relay

import (
	"context"
	"net"
	"sync"
)

// Mode is what a relay does with connections, those that it has included.
type Mode int

// The modes.
const (
	Pass   Mode = iota // bytes go through
	Refuse             // connections are closed
	Hang               // connections stay, and nothing comes through: neither bytes nor that an end has closed
)

// Relay passes connections on to its target, as its mode says.
type Relay struct {
	listener net.Listener
	target   string
	ctx      context.Context // done when the relay is closed
	cancel   context.CancelFunc
	joined   sync.WaitGroup

	mu struct {
		sync.Mutex
		mode  Mode
		conns map[net.Conn]bool
	}
}

// Start makes a relay on a free port of the loopback interface. The caller closes it.
func Start(target string) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: l, target: target}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.conns = make(map[net.Conn]bool)
	r.joined.Go(r.accept)
	return r, nil
}

// Addr is where the relay listens.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Close ends the relay and all its connections; it returns when no goroutine of it is left.
func (r *Relay) Close() {
	_ = r.listener.Close() // of a listener there is nothing to lose
	r.cancel()
	r.Set(Refuse)
	r.joined.Wait()
}

// Set changes the mode. Connections end, unless they are to hang: after a hang bytes are missing, so they cannot go on.
func (r *Relay) Set(mode Mode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mode == r.mu.mode {
		return
	}
	r.mu.mode = mode
	if mode == Hang {
		return
	}
	for c := range r.mu.conns {
		_ = c.Close()
	}
}

func (r *Relay) mode() Mode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.mode
}

// keep notes connections for Set to close; false if they are closed already.
func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.mu.mode == Refuse {
			_ = c.Close()
			continue
		}
		r.mu.conns[c] = true
	}
	return r.mu.mode != Refuse
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.conns, c)
	_ = c.Close()
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.joined.Go(func() { r.connect(client) })
	}
}

// connect joins a client with the target. While the relay hangs the target does not hear of the client.
func (r *Relay) connect(client net.Conn) {
	if r.mode() == Hang {
		r.keep(client)
		return
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(r.ctx, "tcp", r.target)
	if err != nil {
		_ = client.Close()
		return
	}
	if !r.keep(client, server) {
		_, _ = client.Close(), server.Close()
		return
	}
	r.joined.Go(func() { r.copy(server, client) })
	r.copy(client, server)
}

// copy passes bytes on until an end closes. What arrives while the relay hangs is swallowed, and so is that an end
// closed; the other end is closed when the hang is over.
func (r *Relay) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && r.mode() == Pass {
			if _, writeErr := to.Write(buffer[:n]); writeErr != nil {
				err = writeErr
			}
		}
		if err != nil {
			r.drop(from)
			if r.mode() != Hang {
				r.drop(to)
			}
			return
		}
	}
}

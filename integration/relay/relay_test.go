package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

const shortWait = 100 * time.Millisecond

// answered sends a byte and returns what came of it.
func answered(c net.Conn, wait time.Duration) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func TestModes(t *testing.T) {
	r, err := Start(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", r.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	first := dial()
	if err := answered(first, time.Minute); err != nil {
		t.Fatalf("a relay that passes: %v", err)
	}
	r.Set(Hang)
	second := dial()
	for name, c := range map[string]net.Conn{"before": first, "after": second} {
		if err := answered(c, shortWait); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a relay that hangs, connected %s it did: %v", name, err)
		}
	}
	r.Set(Pass)
	for name, c := range map[string]net.Conn{"before": first, "after": second} {
		if err := answered(c, time.Minute); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after a hang, connected %s it began: %v, want the connection closed", name, err)
		}
	}
	r.Set(Refuse)
	if err := answered(dial(), time.Minute); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a relay that refuses: %v", err)
	}
	r.Set(Pass)
	if err := answered(dial(), time.Minute); err != nil {
		t.Fatalf("a relay that passes again: %v", err)
	}
}

// TestCloseIsNotHeardDuringAHang: the other side of a cut network does not learn that a connection has ended.
func TestCloseIsNotHeardDuringAHang(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r, err := Start(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := client.Write([]byte{1}); err != nil { // through, so both ends are joined
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.Set(Hang)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadDeadline(time.Now().Add(shortWait)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the server heard of the close: %v", err)
	}
	if err := server.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.Set(Pass)
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Fatal("the server's connection outlived the hang")
	}
}

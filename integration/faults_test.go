package integration

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestFolderArchiveGone puts a regular file in the place of the archive's folder under load, which no permission of a
// superuser overcomes, and then the folder back.
func TestFolderArchiveGone(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	folder := filepath.Join(in.data, "archive")
	o := newOracle()
	load := startPublishers(t, in.nats, o, 5)
	in.until("some commits", func() bool { return in.metrics()["dormouse_segments_committed_total"] > 3 })
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	// A put that is under way may make the folder again: nothing that it puts there may count as archived then.
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stored := in.streamLast()
	in.until("it to notice", func() bool { return !in.ready() })
	in.until("more load", func() bool {
		if n := in.metrics()["go_goroutines"]; n > 200 {
			t.Fatalf("%v goroutines", n)
		}
		return in.streamLast() > stored+500
	})
	if err := errors.Join(os.Remove(folder), os.Rename(folder+".away", folder)); err != nil {
		t.Fatal(err)
	}
	in.until("readiness", in.ready)
	load.Stop()
	in.awaitQuiet(o.last())
	o.check(in)
	t.Log(in.must("", "verify"))
}

// TestDiskFull fills the disk that holds the server's state. The server ends by itself, whether JetStream or the cache
// notices first: JetStream takes nothing more into a file that it once could not write to. What publishers were acked
// is there when there is room again and the server was started again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		runAsRoot(t)
		return
	}
	in := newInstance(t, fast...)
	archive := "file://" + filepath.Join(t.TempDir(), "archive")
	in.args = append(in.args, "--archive", archive)
	if err := syscall.Mount("tmpfs", in.data, "tmpfs", 0, "size=340m"); err != nil {
		t.Fatalf("a small disk needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		in.kill()
		if err := syscall.Unmount(in.data, 0); err != nil {
			t.Errorf("unmounting %s: %v", in.data, err)
		}
	})
	in.start()
	o := newOracle()
	load := startPublishers(t, in.nats, o, 6)
	in.until("some commits", func() bool { return in.metrics()["dormouse_segments_committed_total"] > 3 })
	filler := filepath.Join(in.data, "filler")
	fill(t, filler)
	in.untilEnded()
	if code := in.wait(); code != 1 || !strings.Contains(in.Output(), "no space left on device") {
		t.Errorf("exit %d, want 1 and why:\n%s", code, in.Tail())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	in.start()
	before, _ := o.Counts()
	in.until("publishers to get on", func() bool { n, _ := o.Counts(); return n > before+100 })
	load.Stop()
	in.awaitQuiet(o.last())
	o.check(in)
	t.Log(in.must("", "verify"))
}

// runAsRoot runs the test in a process of its own, as the root of a user namespace, where it may mount.
func runAsRoot(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("as the root of a user namespace (%v; without the right to make one, run the test as root):\n%s", err, out)
	}
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		block := bytes.Repeat([]byte{1}, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

package integration

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dormouse/internal/proc"
	"dormouse/store/bucket"
	"dormouse/store/bucket/buckettest"
)

// faultyS3 starts an S3 server with faults, and returns it with its address.
func faultyS3(t *testing.T) (*buckettest.S3, string) {
	t.Helper()
	s3, err := buckettest.NewS3()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s3)
	t.Cleanup(server.Close)
	return s3, server.URL
}

// readiness returns what /readyz says, "" when it is ready.
func (in *instance) readiness() string {
	if _, err := proc.Get(in.t.Context(), "http://"+in.http+"/readyz"); err != nil {
		return err.Error()
	}
	return ""
}

// ends starts the process, which must end by itself, and returns its last line.
func (in *instance) ends() string {
	in.t.Helper()
	in.launch()
	in.untilEnded()
	if code := in.wait(); code != 1 {
		in.t.Errorf("it ended with %d, want 1", code)
	}
	lines := strings.Split(strings.TrimSpace(in.Output()), "\n")
	return lines[len(lines)-1]
}

// TestArchiveByAnotherWay: who cannot reach the bucket as the server names it is told of --archive, and leaves nothing
// behind.
func TestArchiveByAnotherWay(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	in.must(lines(10, "first"), "publish", "t.a")
	in.awaitQuiet(10)
	named, moved := filepath.Join(in.data, "archive"), filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(named, moved); err != nil {
		t.Fatal(err)
	}
	told := func(want string, archive ...string) {
		t.Helper()
		for _, command := range [][]string{{"read", "t.a"}, {"verify"}} {
			r := in.run("", append(command, archive...)...)
			hint := strings.Contains(r.Err, "with --archive")
			if r.Code != 1 || !strings.Contains(r.Err, want) || hint != (len(archive) == 0) {
				t.Errorf("%s %v: exit %d, %s", command[0], archive, r.Code, r.Err)
			}
		}
	}
	misspelt := filepath.Join(t.TempDir(), "misspelt")
	told(named)
	told(misspelt, "--archive", "file://"+misspelt)
	for _, folder := range []string{named, misspelt} {
		if _, err := os.Stat(folder); !os.IsNotExist(err) {
			t.Errorf("a reader made %s: %v", folder, err)
		}
	}
	if err := os.Mkdir(named, 0o700); err != nil { // a disk that is not mounted
		t.Fatal(err)
	}
	told("is not this system's")
	in.must("", "read", "t.a", "--archive", "file://"+moved)
	in.must("", "verify", "--archive", "file://"+moved)
}

// TestAnotherArchive: a system's processes and readers are refused with another archive, each of the two named. The
// same one by another name is taken, and one that was copied.
func TestAnotherArchive(t *testing.T) {
	t.Parallel()
	in := newInstance(t, fast...).start()
	in.must(lines(10, "first"), "publish", "t.a")
	in.awaitQuiet(10)
	mine, other := "file://"+filepath.Join(in.data, "archive"), "file://"+t.TempDir()
	both := func(what, said string) {
		t.Helper()
		if !strings.Contains(said, mine) || !strings.Contains(said, other) {
			t.Errorf("%s: %q does not name %s and %s", what, said, mine, other)
		}
	}
	worker := newInstance(t, append([]string{"--roles", "worker", "--nats-url", "nats://" + in.nats}, fast...)...)
	other = "file://" + filepath.Join(worker.data, "archive")
	both("a worker with the default archive of its own --data", worker.ends())
	for _, command := range [][]string{{"read", "t.a"}, {"verify"}} {
		r := in.run("", append(command, "--archive", other)...)
		if both(command[0], r.Err); r.Code != 1 || r.Out != "" {
			t.Errorf("%s: exit %d with %q", command[0], r.Code, r.Out)
		}
	}
	in.stop()
	args := in.args
	in.args = append(args, "--archive", other)
	both("a start with another --archive", in.ends())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(in.data, "archive"), link); err != nil {
		t.Fatal(err)
	}
	in.args = append(args, "--archive", "file://"+link+"/")
	in.start()
	in.must(lines(10, "second"), "publish", "t.a")
	in.awaitQuiet(20)
	in.stop()
	if err := os.CopyFS(strings.TrimPrefix(other, "file://"), os.DirFS(link)); err != nil {
		t.Fatal(err)
	}
	in.args = append(args, "--archive", other)
	in.start()
	if got := in.must("", "read", "t.a"); got != lines(10, "first")+lines(10, "second") {
		t.Errorf("read %q from the copy", got)
	}
	in.must("", "verify")
}

// TestAnswersOfPutsAreLost: every put is stored and answered with an error. All is archived in its time, and no object
// is left over.
func TestAnswersOfPutsAreLost(t *testing.T) {
	t.Parallel()
	s3, endpoint := faultyS3(t)
	s3.Set(buckettest.S3Faults{LoseAnswers: true})
	in := newInstance(t, fast...)
	in.args = append(in.args, "--archive", "s3://logs/a?endpoint="+endpoint)
	in.start()
	for i := range uint64(3) {
		in.must(lines(10, "lost"), "publish", fmt.Sprint("t.log", i))
		in.awaitQuiet(10 * (i + 1))
	}
	bucket, err := bucket.Open(t.Context(), "s3://logs/a?endpoint="+endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bucket.Close() }() // only read from
	objects := 0
	for _, err := range bucket.List(t.Context(), "0/") {
		if err != nil {
			t.Fatal(err)
		}
		objects++
	}
	if m := in.metrics(); float64(objects) != m["dormouse_segments_committed_total"] ||
		m["dormouse_put_failures_total"] != 0 {
		t.Errorf("%d objects, %v segments, %v puts failed", objects, m["dormouse_segments_committed_total"],
			m["dormouse_put_failures_total"])
	}
	in.must("", "verify")
}

// TestBucketThatTakesNothing answers every question and refuses every put: /readyz and a metric say so until it takes
// one.
func TestBucketThatTakesNothing(t *testing.T) {
	t.Parallel()
	s3, endpoint := faultyS3(t)
	in := newInstance(t, fast...)
	in.args = append(in.args, "--archive", "s3://logs/a?endpoint="+endpoint)
	s3.Set(buckettest.S3Faults{NoConditions: true})
	if said := in.ends(); !strings.Contains(said, "If-None-Match") {
		t.Errorf("a server without conditional writes: %q", said)
	}
	s3.Set(buckettest.S3Faults{DenyLists: true})
	in.start()
	m := in.metrics()
	if failed, ok := m["dormouse_put_failures_total"]; !ok || failed != 0 || m["dormouse_puts_failing"] != 0 {
		t.Errorf("at the start %v puts have failed", failed)
	}
	for faults, says := range map[buckettest.S3Faults]string{{DenyPuts: true}: "not allowed to put",
		{NoConditions: true}: "If-None-Match"} {
		s3.Set(faults)
		in.must(lines(10, "waits"), "publish", "t.a")
		in.until("it to say that puts fail", func() bool { return strings.Contains(in.readiness(), says) })
		if m := in.metrics(); m["dormouse_puts_failing"] != 1 || m["dormouse_put_failures_total"] < 3 {
			t.Errorf("%v puts have failed, and puts_failing is %v", m["dormouse_put_failures_total"], m["dormouse_puts_failing"])
		}
		s3.Set(buckettest.S3Faults{})
		in.until("readiness", in.ready)
		in.awaitMetric("dormouse_puts_failing", 0)
	}
	in.awaitQuiet(20)
	in.must("", "verify")
}

// TestReadersFindTheBucket: what only the server's environment or parameters say of the place, its readers are told.
func TestReadersFindTheBucket(t *testing.T) {
	for name, place := range map[string]struct {
		url    string
		faults buckettest.S3Faults
		env    string
	}{
		"endpoint in the environment": {url: "s3://logs/a", env: "AWS_ENDPOINT_URL_S3"},
		"bucket in the host's name": {url: "s3://logs/a?endpoint=http://s3.test&use_path_style=false",
			faults: buckettest.S3Faults{HostNamesOnly: true}},
		"bucket in the host's name, at length": {url: "s3://logs/a?endpoint=http://s3.test&use_path_style=false&hostname_immutable=false", faults: buckettest.S3Faults{HostNamesOnly: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s3, endpoint := faultyS3(t)
			s3.Set(place.faults)
			t.Setenv("HTTP_PROXY", endpoint) // by which hosts of any name are reached; addresses of this machine are without
			if place.env != "" {
				t.Setenv(place.env, endpoint)
			}
			in := newInstance(t, fast...)
			in.args = append(in.args, "--archive", place.url)
			in.start()
			in.must(lines(10, "here"), "publish", "t.a")
			in.awaitQuiet(10)
			if place.env != "" {
				os.Unsetenv(place.env)
			}
			if got := in.must("", "read", "t.a"); got != lines(10, "here") {
				t.Errorf("read %q", got)
			}
			in.must("", "verify")
		})
	}
}

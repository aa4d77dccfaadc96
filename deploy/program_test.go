package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"dormouse/internal/proc"
	"dormouse/internal/programtest"
	"dormouse/internal/topology"
)

// binary is the program.
var binary string

func TestMain(m *testing.M) {
	programtest.Main(m, func(dir string) error {
		binary = filepath.Join(dir, "dormouse")
		return programtest.Build(binary, programtest.Dormouse)
	})
}

// program is the program for the users of a configuration.
type program struct {
	t   *testing.T
	url string
}

func (p program) as(user string) proc.CLI {
	return proc.CLI{Binary: binary, NATS: strings.Replace(p.url, "://", "://"+user+":secret-of-"+user+"@", 1)}
}

func (p program) run(user, input string, args ...string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	r := p.as(user).Run(ctx, input, args...)
	if r.Code != 0 || strings.Contains(r.Err, "ermission") {
		p.t.Fatalf("as %s: dormouse %s: exit %d, %s", user, strings.Join(args, " "), r.Code, r.Err)
	}
	return r.Out
}

// untilArchived waits until the archive has so many entries.
func (p program) untilArchived(entries int) {
	p.t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(p.run("reader", "", "verify"), fmt.Sprintf(" %d entries: 0 bad", entries)) {
		select {
		case <-deadline:
			p.t.Fatalf("%d entries are not archived", entries)
		case <-tick.C:
		}
	}
}

// TestUsersCanDoTheirWork runs the program under the shipped configuration, with one stream and with shards: tenants
// publish from accounts of their own, and the reader reads what is in the streams and what is archived.
func TestUsersCanDoTheirWork(t *testing.T) {
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d shards", shards), func(t *testing.T) {
			p := program{t, startOn(t, configFor(t, shards)).ClientURL()}
			p.run("dormouse", "", "provision", "--shards", fmt.Sprint(shards))
			serve := proc.Process{Log: filepath.Join(t.TempDir(), "output")}
			if err := serve.Start(p.as("dormouse").Command(t.Context(), "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0",
				"--max-delay", "1s")); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := serve.Signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				if err := serve.Wait(); err != nil {
					t.Errorf("serve: %v\n%s", err, serve.Tail())
				}
			}()
			for _, tenant := range []string{"acme", "globex"} {
				p.run(tenant, "one\ntwo\n", "publish", tenant+".web")
			}
			for _, when := range []string{"in the streams", "in the archive"} {
				for _, tenant := range []string{"acme", "globex"} {
					if got := p.run("reader", "", "read", tenant+".web"); got != "one\ntwo\n" {
						t.Errorf("%s, %s reads %q", when, tenant, got)
					}
				}
				if got := p.run("reader", "", "ls", "--output",
					"jsonl"); len(regexp.MustCompile(`"log":"(acme|globex).web"`).FindAllString(got, -1)) != 2 {
					t.Errorf("%s, the reader lists %s", when, got)
				}
				if got := p.run("reader", "", "status", "--output", "json"); strings.Count(got, `"state": "owned"`) != shards {
					t.Errorf("the status is %s", got)
				}
				p.untilArchived(4)
			}
		})
	}
}

// configFor returns the shipped configuration, changed for shards as its comments say.
func configFor(t *testing.T, shards int) string {
	t.Helper()
	shipped, err := os.ReadFile("nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(shipped)
	if shards > 1 {
		m := topology.PartitionMapping(shards)
		placeholder := strings.Replace(m.To, fmt.Sprintf("partition(%d,", shards), "partition(N,", 1)
		comment := fmt.Sprintf("# mappings = { %q: %q }", m.From, placeholder)
		if !strings.Contains(text, comment) {
			t.Fatalf("the configuration does not have the mapping %s", comment)
		}
		text = strings.Replace(text, comment, fmt.Sprintf("mappings = { %q: %q }", m.From, m.To), 1)
		text = regexp.MustCompile(`"[^"]*\.LOGS(\.>)?"`).ReplaceAllStringFunc(text, func(permission string) string {
			var all []string
			for n := range shards {
				all = append(all, strings.Replace(permission, ".LOGS", fmt.Sprintf(".DORMOUSE_LOGS_%d", n), 1))
			}
			return strings.Join(all, ", ")
		})
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

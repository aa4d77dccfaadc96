package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/shirou/gopsutil/v4/process"

	"dormouse/internal/proc"
	"dormouse/internal/wire"
)

// patience bounds every wait for the program to get somewhere.
const patience = 10 * time.Minute

// run is one run of one scenario.
type run struct {
	Config
	dir     string
	step    func(string)
	samples []sample
	program *program // the last one started; nil when it was stopped
	others  []*program
	used    bool // streams were made on NATSURL
}

func (r *run) add(name, unit string, value float64, t *target) {
	r.samples = append(r.samples, sample{name: name, unit: unit, value: value, target: t})
}

func (r *run) compare(name, unit string, value float64, baselineName string, baseline float64, t *target) {
	r.samples = append(r.samples, sample{name: name, unit: unit, value: value, baselineName: baselineName,
		baseline: baseline, target: t})
}

// program is a running `dormouse serve`.
type program struct {
	proc.Process
	stats   *process.Process // what it uses
	data    string           // directory
	url     string           // of NATS
	outside bool             // that is not its own
	joined  []string         // further flags, of one that joined a system
	http    string
	nc      *nats.Conn
	js      jetstream.JetStream
}

func (r *run) data() string { return filepath.Join(r.dir, "data") }

// serve starts the program on the run's data directory and waits until it is ready. args are further flags of serve.
func (r *run) serve(ctx context.Context, args ...string) (*program, error) {
	if r.NATSURL != "" && !r.used {
		if err := r.checkUnused(ctx); err != nil {
			return nil, err
		}
		r.used = true
	}
	url, outside := r.NATSURL, r.NATSURL != ""
	if !outside {
		natsAddr, err := proc.FreeAddr()
		if err != nil {
			return nil, err
		}
		args, url = append([]string{"--nats-listen", natsAddr}, args...), "nats://"+natsAddr
	} else {
		args = append(outsideFlags, args...)
	}
	p := newProgram(url, outside, filepath.Join(r.dir, "program.log"))
	r.program = p
	return p, p.start(ctx, r.Program, r.data(), args)
}

// outsideFlags are those of a process whose NATS server is not its own. What trimming costs shows soon; a power failure
// in the middle of a benchmark is not provided for.
var outsideFlags = slices.Clip([]string{"--sync-interval", "1s", "--trim-delay", "5s"})

// join starts another process of the system, on a data directory of its own. The caller stops it before the run's
// program.
func (r *run) join(ctx context.Context, name string, args ...string) (*program, error) {
	p := newProgram(r.program.url, true, filepath.Join(r.dir, name+".log"))
	p.joined = append(outsideFlags, args...)
	r.others = append(r.others, p)
	return p, p.start(ctx, r.Program, filepath.Join(r.dir, name), p.joined)
}

func newProgram(url string, outside bool, log string) *program {
	return &program{Process: proc.Process{Log: log}, url: url, outside: outside}
}

// start starts the process and waits until it is ready.
func (p *program) start(ctx context.Context, command []string, data string, args []string) error {
	httpAddr, err := proc.FreeAddr()
	if err != nil {
		return err
	}
	p.http = httpAddr
	flags := append([]string{"serve", "--data", data, "--http", httpAddr, "--log-level", "warn"}, args...)
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], flags...)...)
	if p.outside { // no flag, which everybody on the machine sees: the URL may have a password
		cmd.Env = append(os.Environ(), "DORMOUSE_NATS_URL="+p.url)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the terminal is ours to pass on
	p.data = data
	if err := p.Start(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", command[0], err)
	}
	if p.stats, err = process.NewProcess(int32(cmd.Process.Pid)); err != nil {
		return err
	}
	if err := p.until(ctx, "readiness", 20*time.Millisecond, func() (bool, error) {
		return p.ready(ctx), nil
	}); err != nil {
		return err
	}
	if p.nc, err = nats.Connect(p.url, nats.Name("dormouse bench")); err != nil {
		return err
	}
	p.js, err = jetstream.New(p.nc, jetstream.WithPublishAsyncMaxPending(publishWindow),
		jetstream.WithPublishAsyncErrHandler(
			func(jetstream.JetStream, *nats.Msg, error) {})) // publish looks at every future itself
	return err
}

// checkUnused refuses a NATS where something of Dormouse is already: a benchmark must not touch what is in use.
func (r *run) checkUnused(ctx context.Context) error {
	nc, err := nats.Connect(r.NATSURL, nats.Name("dormouse bench"))
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", r.NATSURL, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for _, name := range ownStreams {
		_, err := js.Stream(ctx, name)
		if err == nil {
			return fmt.Errorf("the NATS at %s has a stream %s: benchmark on one without Dormouse, since its streams are "+
				"deleted after each run", r.NATSURL, name)
		}
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("looking at the NATS at %s: %w", r.NATSURL, err)
		}
	}
	return nil
}

var ownStreams = []string{wire.DefaultSource, wire.SyncQueueStream, wire.MergeStream, wire.ManifestStream,
	wire.RejectedStream, "KV_" + wire.LeaseBucket}

// close stops what runs, and deletes the streams on a NATS that is not ours.
func (r *run) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := r.stop()
	if r.NATSURL == "" || !r.used {
		return err
	}
	nc, cerr := nats.Connect(r.NATSURL, nats.Name("dormouse bench"))
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	defer nc.Close()
	js, cerr := jetstream.New(nc)
	err = errors.Join(err, cerr)
	for _, name := range ownStreams {
		if derr := js.DeleteStream(ctx, name); derr != nil && !errors.Is(derr, jetstream.ErrStreamNotFound) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// stop ends all processes with SIGTERM, the program last, and waits for their ends.
func (r *run) stop() error {
	var errs []error
	for _, p := range r.others {
		errs = append(errs, p.stop())
	}
	r.others = nil
	if p := r.program; p != nil {
		r.program = nil
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// stop ends the process with SIGTERM and waits for its end. One that was killed or never started is no error.
func (p *program) stop() error {
	if p.nc != nil {
		p.nc.Close()
		p.nc = nil
	}
	if !p.Up() {
		return nil
	}
	http.DefaultClient.CloseIdleConnections()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("the program ended by itself: %w: %s", err, p.Tail())
	}
	select {
	case <-p.Ended():
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the program did not end in a minute: killed it"), p.Kill())
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("the program ended with %w: %s", err, p.Tail())
	}
	return nil
}

// fresh stops the program and empties the data directory, or deletes the streams on a NATS that is not ours.
func (r *run) fresh(ctx context.Context) error {
	if err := r.close(ctx); err != nil {
		return err
	}
	return os.RemoveAll(r.data())
}

func (p *program) ready(ctx context.Context) bool {
	_, err := proc.Get(ctx, "http://"+p.http+"/readyz")
	return err == nil
}

// metrics returns the program's samples: of these names, or all of them.
func (p *program) metrics(ctx context.Context, names ...string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return proc.Scrape(ctx, p.http, names...)
}

// until polls a condition. A process that ends meanwhile is an error.
func (p *program) until(ctx context.Context, what string, every time.Duration, ok func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for {
		done, err := ok()
		if done {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s for %s (last error: %w): %s", patience, what, err, p.Tail())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Ended():
			return fmt.Errorf("the program ended while waiting for %s: %w: %s", what, p.Wait(), p.Tail())
		case <-tick.C:
		}
	}
}

// untilSynced waits until the process has committed n entries in its life.
func (p *program) untilSynced(ctx context.Context, n int) error {
	return p.until(ctx, fmt.Sprintf("%d entries to be committed", n), 100*time.Millisecond, func() (bool, error) {
		const synced = "dormouse_entries_synced_total"
		m, err := p.metrics(ctx, synced)
		return m[synced] >= float64(n), err
	})
}

// untilAsleep waits until nothing is buffered and the source stream is trimmed.
func (p *program) untilAsleep(ctx context.Context) error {
	return p.until(ctx, "all logs to sleep and the stream to be trimmed", 250*time.Millisecond, func() (bool, error) {
		stream, err := p.js.Stream(ctx, wire.DefaultSource)
		if err != nil {
			return false, err
		}
		if stream.CachedInfo().State.Msgs > 0 {
			return false, nil
		}
		m, err := p.metrics(ctx)
		return m["dormouse_logs_active"] == 0, err
	})
}

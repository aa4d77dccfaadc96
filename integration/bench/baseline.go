package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/shirou/gopsutil/v4/process"

	"dormouse/internal/natsserver"
	"dormouse/internal/wire"
)

// Baselines are what a Suite compares with, each in a process of its own: `dormouse bench baseline NAME ARG`.
var Baselines = map[string]func(ctx context.Context, arg string, in io.Reader, out io.Writer) error{
	"goroutines": goroutinePerLog,
	"consumer":   bareConsumer,
}

// baselinePeriod is how often the baseline's tickers look at their buffers, the default of --max-delay.
const baselinePeriod = 5 * time.Second

// goroutinePerLog holds a goroutine with a ticker and a small buffer for each of arg logs, as archivers without a
// scheduler do, until in ends. It prints one line when it begins, and one with the number of goroutines in the process
// when all are there.
func goroutinePerLog(ctx context.Context, arg string, in io.Reader, out io.Writer) error {
	logs, err := strconv.Atoi(arg)
	if err != nil {
		return fmt.Errorf("number of logs %q: %w", arg, err)
	}
	if _, err := fmt.Fprintln(out, "begin"); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	for range logs {
		group.Go(func() {
			buffer := make([]byte, 0, 256)
			ticker := time.NewTicker(baselinePeriod)
			defer ticker.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticker.C:
					buffer = buffer[:0] // where it would be archived
				}
			}
		})
	}
	if _, err := fmt.Fprintln(out, runtime.NumGoroutine()); err != nil {
		cancel()
		return err
	}
	_, err = io.Copy(io.Discard, in)
	cancel()
	group.Wait()
	return err
}

// consumed is what bareConsumer prints.
type consumed struct {
	Messages uint64        `json:"messages"`
	Took     time.Duration `json:"took"`
}

// bareConsumer reads the source stream of the data directory arg to its end with an ordered consumer that does nothing
// with it, over an in-process connection to an embedded server: the least that anything that reads the stream has to
// do.
func bareConsumer(ctx context.Context, arg string, _ io.Reader, out io.Writer) (err error) {
	server, err := natsserver.Start(natsserver.Config{Dir: filepath.Join(arg, "nats"), Listen: "127.0.0.1:0",
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Shutdown()) }()
	nc, err := nats.Connect(server.URL(), server.InProcess())
	if err != nil {
		return err
	}
	defer nc.Close()
	result, err := readAll(ctx, nc)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(result)
}

// readAll reads the source stream once.
func readAll(ctx context.Context, nc *nats.Conn) (consumed, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return consumed{}, err
	}
	began := time.Now()
	consumer, err := js.OrderedConsumer(ctx, wire.DefaultSource, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return consumed{}, err
	}
	done := make(chan uint64, 1)
	var n uint64
	handle, err := consumer.Consume(func(msg jetstream.Msg) {
		n++
		if meta, err := msg.Metadata(); err == nil && meta.NumPending == 0 {
			select {
			case done <- n:
			default:
			}
		}
	}, jetstream.PullMaxMessages(4096))
	if err != nil {
		return consumed{}, err
	}
	defer handle.Stop()
	select {
	case <-ctx.Done():
		return consumed{}, ctx.Err()
	case total := <-done:
		return consumed{total, time.Since(began)}, nil
	}
}

// baseline is a running baseline process.
type baseline struct {
	cmd   *exec.Cmd
	in    io.Closer
	out   *bufio.Reader
	stats *process.Process
	log   *os.File // what it prints of its errors
}

func (r *run) baseline(ctx context.Context, name, arg string) (*baseline, error) {
	args := append(r.Program[1:len(r.Program):len(r.Program)], "bench", "baseline", name, arg)
	log, err := os.CreateTemp(r.dir, "baseline-*.log")
	if err != nil {
		return nil, err
	}
	b := &baseline{cmd: exec.CommandContext(ctx, r.Program[0], args...), log: log}
	b.cmd.Stderr = b.log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := b.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.in, b.out = in, bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the baseline %s: %w", name, err)
	}
	b.stats, err = process.NewProcess(int32(b.cmd.Process.Pid))
	return b, err
}

// line reads one line of what the baseline prints.
func (b *baseline) line() (string, error) {
	text, err := b.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the baseline ended: %w: %s", err, b.said())
	}
	return strings.TrimSpace(text), nil
}

// end lets the baseline end and waits for it.
func (b *baseline) end() error {
	if err := b.in.Close(); err != nil {
		return err
	}
	if err := b.cmd.Wait(); err != nil {
		return fmt.Errorf("the baseline ended with %w: %s", err, b.said())
	}
	return b.log.Close()
}

// said returns what it printed of its errors, or why that cannot be read.
func (b *baseline) said() string {
	text, err := os.ReadFile(b.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// idleCost is what a goroutine for each log takes.
type idleCost struct {
	resident   float64 // MiB over an empty process
	cores      float64
	goroutines float64 // in the process
}

// idleBaseline measures what a goroutine for each of n logs takes.
func (r *run) idleBaseline(ctx context.Context, n int) (cost idleCost, err error) {
	b, err := r.baseline(ctx, "goroutines", strconv.Itoa(n))
	if err != nil {
		return cost, err
	}
	defer func() { err = errors.Join(err, b.end()) }()
	p := &program{stats: b.stats}
	if _, err := b.line(); err != nil {
		return cost, err
	}
	empty, err := p.resident()
	if err != nil {
		return cost, err
	}
	counted, err := b.line()
	if err != nil {
		return cost, err
	}
	if cost.goroutines, err = strconv.ParseFloat(counted, 64); err != nil {
		return cost, fmt.Errorf("the baseline's goroutines: %w", err)
	}
	if cost.resident, err = p.settled(ctx); err != nil {
		return cost, err
	}
	cost.resident -= empty
	cost.cores, err = p.cores(ctx, r.Idle)
	return cost, err
}

// consumerBaseline returns the rate, in entries a second, at which the bare consumer reads the source stream. The
// program must not be running.
func (r *run) consumerBaseline(ctx context.Context, entries int) (float64, error) {
	if r.NATSURL != "" {
		nc, err := nats.Connect(r.NATSURL, nats.Name("dormouse bench"))
		if err != nil {
			return 0, err
		}
		defer nc.Close()
		result, err := readAll(ctx, nc)
		return result.rate(entries, err)
	}
	b, err := r.baseline(ctx, "consumer", r.data())
	if err != nil {
		return 0, err
	}
	text, err := b.line()
	if err = errors.Join(err, b.end()); err != nil {
		return 0, err
	}
	var result consumed
	err = json.Unmarshal([]byte(text), &result)
	return result.rate(entries, err)
}

func (c consumed) rate(entries int, err error) (float64, error) {
	if err != nil {
		return 0, err
	}
	if c.Messages != uint64(entries) {
		return 0, fmt.Errorf("the bare consumer read %d of %d entries", c.Messages, entries)
	}
	return float64(c.Messages) / c.Took.Seconds(), nil
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/entry"
	"dormouse/internal/logid"
	"dormouse/store/bucket"
	"dormouse/store/client"
	"dormouse/store/identity"
	"dormouse/store/reader"
)

func newReadCommand() *cobra.Command {
	var from, to string
	var follow bool
	var output *choice
	cmd := &cobra.Command{
		Use:   "read LOGID",
		Short: "Print the entries of a log: archived ones, then those still in the stream",
		Long: `Read prints each entry of a log once, in the order of its sequences, whether it is archived or not yet. It
asks NATS for what is where, and fetches what is archived from the bucket, whose credentials it needs as well.
--archive is another way to the same bucket, for where the address that the server names does not lead to it.

raw prints payload and newline; jsonl prints {"log","seq","time","headers","data"}. What is not UTF-8 is in base64, and
says so: a payload by "encoding":"base64"; headers, with all their values, by being in "headers_base64" instead of
"headers".`,
		Example: `  dormouse read acme.web
  dormouse read acme.web --from 2026-01-31T08:00:00Z --to 15m --output jsonl
  dormouse read acme.web --from 10m --follow
  dormouse read acme.web --no-nats --archive file:///var/lib/dormouse/archive`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := reader.Query{Log: args[0], Follow: follow}
			if err := logid.Validate(q.Log); err != nil {
				return usageError{err}
			}
			now := time.Now()
			var err error
			if q.From, q.FromTime, err = parseBound(from, now); err != nil {
				return usageErrorf("--from %w", err)
			}
			if q.To, q.ToTime, err = parseBound(to, now); err != nil {
				return usageErrorf("--to %w", err)
			}
			return read(cmd, q, newPrinter(cmd.OutOrStdout(), output.value))
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "first entry: a sequence, a time (RFC 3339) or a duration ago (10m)")
	f.StringVar(&to, "to", "", "last entry, likewise")
	f.BoolVar(&follow, "follow", false, "go on with new entries until interrupted, or until --to if that is ahead")
	output = addChoice(cmd, "output", "output format", "raw", "jsonl")
	addConnectFlags(cmd)
	addArchiveFlag(cmd, "bucket to read from (default: the one that the server names)")
	addAloneFlag(cmd)
	return cmd
}

// parseBound reads a bound: a sequence above 0, a time, or a duration before now.
func parseBound(s string, now time.Time) (seq uint64, at time.Time, err error) {
	if s == "" {
		return 0, at, nil
	}
	seq, err = strconv.ParseUint(s, 10, 64)
	if err == nil && seq > 0 {
		return seq, at, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return 0, at, nil
	}
	if ago, derr := time.ParseDuration(s); derr == nil && ago >= 0 && err != nil { // a bare 0 is no duration
		return 0, now.Add(-ago), nil
	}
	return 0, at, fmt.Errorf("%q: want a sequence from 1, a time like 2026-01-31T08:00:00Z or a duration ago like 10m", s)
}

func read(cmd *cobra.Command, q reader.Query, out *printer) error {
	bucketAlone, shut, err := aloneOf(cmd)
	if err != nil {
		return err
	}
	if bucketAlone != nil {
		defer shut()
		if q.Follow {
			return usageErrorf("give either --no-nats or --follow, not both: nothing comes without NATS")
		}
		err := out.during(cmd.Context(), func(ctx context.Context) error { return bucketAlone.Read(ctx, q, out.print) })
		if errors.Is(err, client.ErrNoLog) {
			err = fmt.Errorf("%w in the archive: %s (see 'dormouse ls --no-nats')", err, q.Log)
		}
		return err
	}
	nc, js, err := connect(cmd)
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx := cmd.Context()
	owners := client.New(nc, js)
	open, closeArchive := archiveOf(cmd, js)
	defer closeArchive()
	at, err := reader.Locate(ctx, owners, open, q.Log)
	if err != nil && !(q.Follow && errors.Is(err, client.ErrNoLog) && at.Source.Stream != "") {
		return anotherWay(cmd, err)
	}
	bucket, err := open(ctx, at.Archive)
	if err != nil {
		return err
	}
	r, closeReader, err := reader.Open(ctx, owners, at, bucket)
	if err != nil {
		return err
	}
	defer closeReader()
	err = anotherWay(cmd, out.during(ctx, func(ctx context.Context) error { return r.Read(ctx, q, out.print) }))
	if q.Follow && ctx.Err() != nil {
		return ended(ctx) // an interrupt is the usual end of following
	}
	return err
}

// archiveOf returns what opens the bucket of --archive or, without it, the one that the server names, once for all of a
// command, and what closes it.
func archiveOf(cmd *cobra.Command, js jetstream.JetStream) (open reader.Archive, shut func()) {
	var mu sync.Mutex
	var opened *reader.Bucket
	open = func(ctx context.Context, named string) (*reader.Bucket, error) {
		mu.Lock()
		defer mu.Unlock()
		if opened != nil {
			return opened, nil
		}
		b, err := openArchive(ctx, cmd, named)
		if err == nil {
			opened = reader.NewBucket(js, b)
		}
		return opened, err
	}
	return open, func() {
		if opened != nil {
			_ = opened.Close() // only read from
		}
	}
}

// openArchive opens the bucket of --archive or, without it, the one that the server named.
func openArchive(ctx context.Context, cmd *cobra.Command, named string) (*bucket.Bucket, error) {
	url := archiveURL(cmd)
	if url == "" {
		url = named
	}
	bucket, err := bucket.OpenToRead(ctx, url)
	if err != nil {
		err = anotherWay(cmd, identity.ElsewhereError{Err: err})
	}
	return bucket, err
}

// anotherWay says what to try when the bucket that the server named is not reached from here.
func anotherWay(cmd *cobra.Command, err error) error {
	if archiveURL(cmd) != "" || !errors.As(err, new(identity.ElsewhereError)) {
		return err
	}
	return fmt.Errorf("%w (this is the bucket as the server names it: if it is reached in another way from here, or "+
		"with other credentials, give that way with --archive, and those in the environment)", err)
}

// printer writes entries, buffered; while following it flushes when nothing more comes at once.
type printer struct {
	out   *bufio.Writer
	print func(entry.Entry) error
	dirty chan struct{} // cap 1: something was printed since the last flush
	lock  chan struct{} // cap 1: held by who uses out
}

// flushEvery is how long a printed entry may stay in the buffer.
const flushEvery = 50 * time.Millisecond

func newPrinter(w io.Writer, format string) *printer {
	p := &printer{out: bufio.NewWriterSize(w, 64<<10), dirty: make(chan struct{}, 1), lock: make(chan struct{}, 1)}
	one := p.raw
	if format == "jsonl" {
		one = p.jsonl
	}
	p.print = func(e entry.Entry) error {
		p.lock <- struct{}{}
		defer func() { <-p.lock }()
		select {
		case p.dirty <- struct{}{}:
		default:
		}
		return one(e)
	}
	return p
}

// during flushes now and then while fn prints, and at its end. When that fails the context of fn ends: nothing more may
// come to be printed.
func (p *printer) during(ctx context.Context, fn func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	quit, joined := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(joined)
		for {
			select {
			case <-quit:
				return
			case <-p.dirty:
			}
			select {
			case <-quit:
				return
			case <-time.After(flushEvery):
			}
			p.lock <- struct{}{}
			if p.out.Flush() != nil { // bufio keeps the error
				stop()
			}
			<-p.lock
		}
	}()
	err := fn(ctx)
	close(quit)
	<-joined
	if lost := p.out.Flush(); lost != nil {
		return lost
	}
	return err
}

func (p *printer) raw(e entry.Entry) error {
	if _, err := p.out.Write(e.Data); err != nil {
		return err
	}
	return p.out.WriteByte('\n')
}

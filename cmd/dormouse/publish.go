package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/logid"
	"dormouse/internal/wire"
)

func newPublishCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "publish LOGID < lines",
		Short: "Publish one entry per line of standard input",
		Long: `Publish makes one entry of each line of standard input, without its newline, and prints how many were stored
and the last one's sequence. Any NATS client can do the same: the subject is logs.LOGID.`,
		Example: `  dormouse publish acme.web < app.log
  journalctl -o json -u nginx | dormouse publish acme.web.nginx`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := logid.Validate(args[0]); err != nil {
				return usageError{err}
			}
			nc, js, err := connect(cmd, jetstream.WithPublishAsyncTimeout(ackTimeout))
			if err != nil {
				return err
			}
			defer nc.Close()
			show, end := progress(cmd, "publishing")
			p := &publisher{js: js, subject: prefix + "." + args[0], limit: int(nc.MaxPayload()), progress: show}
			err = p.publish(cmd.Context(), cmd.InOrStdin())
			end()
			fmt.Fprintf(cmd.OutOrStdout(), "%d entries, last sequence %d\n", p.acked, p.last)
			return err
		},
	}
	addConnectFlags(cmd)
	cmd.Flags().StringVar(&prefix, "prefix", wire.DefaultPrefix, "subject prefix in front of the LogID")
	return cmd
}

// Bounds of what is published but not acked; a slow stream holds the reading of lines up, and memory stays small.
const (
	publishWindow = 1024    // entries
	publishBytes  = 8 << 20 // of payload
	ackTimeout    = 30 * time.Second
)

// publisher publishes lines in order. The first failure ends it.
type publisher struct {
	js       jetstream.JetStream // with a time-out for acks
	subject  string
	limit    int                      // longest line, bytes
	progress func(done, total uint64) // entries; the total is not known, 0

	window []unacked // in the order of lines
	bytes  int       // in window
	acked  uint64    // lines
	last   uint64    // sequence
}

type unacked struct {
	jetstream.PubAckFuture
	bytes int
}

// publish publishes lines until their end, an error or an interrupt, and returns when all that was sent is acked or
// cannot be. An ack is seen as soon as it comes, so that a failure shows while the input is silent.
func (p *publisher) publish(ctx context.Context, input io.Reader) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	lines, interrupted := readLines(reading, input, p.limit), ctx.Done()
	var end error // why no more lines are taken; lines is nil then
	for lines != nil || len(p.window) > 0 {
		in := lines
		if len(p.window) >= publishWindow || p.bytes >= publishBytes {
			in = nil
		}
		var oldest unacked
		var acks <-chan *jetstream.PubAck
		var failures <-chan error
		if len(p.window) > 0 {
			oldest = p.window[0]
			acks, failures = oldest.Ok(), oldest.Err()
		}
		select {
		case l, more := <-in:
			if more {
				end = p.send(l)
			}
			if !more || end != nil {
				lines = nil
			}
		case ack := <-acks:
			p.window, p.bytes = p.window[1:], p.bytes-oldest.bytes
			p.acked++
			p.last = max(p.last, ack.Sequence)
			p.progress(p.acked, 0)
		case err := <-failures:
			return p.lost(err, fmt.Sprintf(". Is there a stream for %s, and is it not full?", p.subject))
		case <-interrupted:
			if err := ended(ctx); err != nil {
				return p.lost(err, "")
			}
			interrupted, lines, end = nil, nil, errors.New("interrupted: the rest of the input was not published")
		}
	}
	return end
}

// lost says which line was the first that is not stored, and why.
func (p *publisher) lost(err error, advice string) error {
	return fmt.Errorf("line %d was not stored: %w (the lines before it are; of the %d after it some may be%s)",
		p.acked+1, err, max(len(p.window), 1)-1, advice)
}

func (p *publisher) send(l inputLine) error {
	if l.err != nil {
		return fmt.Errorf("line %d: %w", l.number, l.err)
	}
	// Without retries by the library: they would store a line after later ones.
	ack, err := p.js.PublishAsync(p.subject, l.data, jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("line %d: %w", l.number, err)
	}
	p.window, p.bytes = append(p.window, unacked{ack, len(l.data)}), p.bytes+len(l.data)
	return nil
}

// inputLine is one line of the input, or what ended it.
type inputLine struct {
	number uint64
	data   []byte
	err    error
}

// readLines hands over one line after the other until the input ends, which closes the channel, or there is an error,
// which is the last thing to come, or ctx ends. Its goroutine may stay in a read of the input that never returns, so
// that an interrupt ends the command also at a silent terminal or pipe.
func readLines(ctx context.Context, input io.Reader, limit int) <-chan inputLine {
	lines := make(chan inputLine)
	go func() {
		in := bufio.NewReaderSize(input, 64<<10)
		for l := (inputLine{number: 1}); l.err == nil; l.number++ {
			if l.data, l.err = readLine(in, limit); errors.Is(l.err, io.EOF) {
				close(lines)
				return
			}
			select {
			case lines <- l:
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

// readLine returns the next line without its newline, in memory of its own; a last line need not have one. Lines longer
// than limit are an error that the reader does not hold in memory.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(bytes.TrimSuffix(part, []byte("\n"))) > limit {
			return nil, fmt.Errorf("longer than the server's max_payload of %d bytes: split it, or raise the limit", limit)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

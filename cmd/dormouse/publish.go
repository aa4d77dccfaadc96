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
			nc, js, err := connect(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			defer nc.Close()
			p := &publisher{js: js, subject: prefix + "." + args[0], limit: int(nc.MaxPayload())}
			err = p.publish(cmd.Context(), cmd.InOrStdin())
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
	publishWindow = 256     // entries
	publishBytes  = 8 << 20 // of payload
	ackTimeout    = 30 * time.Second
)

// publisher publishes lines in order. The first failure ends it.
type publisher struct {
	js      jetstream.JetStream
	subject string
	limit   int // longest line, bytes

	window []jetstream.PubAckFuture
	bytes  int
	acked  uint64
	last   uint64
}

func (p *publisher) publish(ctx context.Context, lines io.Reader) error {
	in := bufio.NewReaderSize(lines, 64<<10)
	for number := uint64(1); ; number++ {
		line, err := readLine(in, p.limit)
		if errors.Is(err, io.EOF) {
			return p.flush(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("line %d: %w", number, err), p.flush(ctx))
		}
		ack, err := p.js.PublishAsync(p.subject, line)
		if err != nil {
			return errors.Join(fmt.Errorf("line %d: %w", number, err), p.flush(ctx))
		}
		p.window = append(p.window, ack)
		if p.bytes += len(line); len(p.window) >= publishWindow || p.bytes >= publishBytes {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// flush waits for the acks of the window.
func (p *publisher) flush(ctx context.Context) error {
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	for _, ack := range p.window {
		select {
		case a := <-ack.Ok():
			p.acked++
			p.last = max(p.last, a.Sequence)
		case err := <-ack.Err():
			return p.failed(err)
		case <-timeout.C:
			return p.failed(fmt.Errorf("no ack in %s", ackTimeout))
		case <-ctx.Done():
			return p.failed(ctx.Err())
		}
	}
	p.window, p.bytes = p.window[:0], 0
	return nil
}

func (p *publisher) failed(err error) error {
	return fmt.Errorf("line %d was not acked: %w (the %d lines before it are stored, of the next %d some may be; is there a stream for %s?)",
		p.acked+1, err, p.acked, publishWindow, p.subject)
}

// readLine returns the next line without its newline, in memory of its own; a last line need not have one. Lines longer
// than limit are an error that the reader does not hold in memory.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit+1 {
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

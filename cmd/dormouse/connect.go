package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"github.com/synadia-io/orbit.go/natscontext"

	"dormouse/internal/outage"
)

// addConnectFlags adds the flags that say which NATS to talk to.
func addConnectFlags(cmd *cobra.Command) {
	cmd.Flags().String("nats-url", "", "NATS server(s), comma separated (default "+nats.DefaultURL+", for serve the embedded server)")
	cmd.Flags().String("nats-context", "", "context of the nats CLI to connect with")
	cmd.Flags().String("nats-creds", "", "credentials file for NATS")
}

func addArchiveFlag(cmd *cobra.Command, usage string) {
	cmd.Flags().String("archive", "", usage)
}

// archiveURL returns what --archive says, "" when it was not given.
func archiveURL(cmd *cobra.Command) string {
	url, err := cmd.Flags().GetString("archive")
	if err != nil {
		panic(err) // a command without the flag asks for it
	}
	return url
}

// target is where the flags say to connect.
type target struct{ url, context, creds string }

func targetOf(cmd *cobra.Command) (t target, err error) {
	var errs [3]error
	t.url, errs[0] = cmd.Flags().GetString("nats-url")
	t.context, errs[1] = cmd.Flags().GetString("nats-context")
	t.creds, errs[2] = cmd.Flags().GetString("nats-creds")
	if t.url != "" && t.context != "" {
		return t, usageErrorf("give either --nats-url or --nats-context, not both")
	}
	return t, errors.Join(errs[:]...)
}

// dial connects as the flags say. extra options come last.
func (t target) dial(name string, extra ...nats.Option) (*nats.Conn, error) {
	options := []nats.Option{nats.Name(name), nats.Timeout(5 * time.Second)}
	if t.creds != "" {
		options = append(options, nats.UserCredentials(t.creds))
	}
	options = append(options, extra...)
	if t.context != "" {
		nc, _, err := natscontext.Connect(t.context, options...)
		if err != nil {
			return nil, fmt.Errorf("connecting with the NATS context %q: %w (see 'nats context ls')", t.context, err)
		}
		return nc, nil
	}
	url := t.url
	if url == "" {
		url = nats.DefaultURL
	}
	nc, err := nats.Connect(url, options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w (is `dormouse serve` or a NATS server running there? set --nats-url, --nats-context or --nats-creds)", url, err)
	}
	return nc, nil
}

// connect connects a client command. The caller closes the connection.
func connect(_ context.Context, cmd *cobra.Command) (*nats.Conn, jetstream.JetStream, error) {
	t, err := targetOf(cmd)
	if err != nil {
		return nil, nil, err
	}
	nc, err := t.dial("dormouse " + cmd.Name())
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// pingInterval is how often a connection that is silent is probed. A server that hangs is left after three of them, instead
// of the library's six minutes: work goes on at another one.
const pingInterval = 3 * time.Second

// serverOptions make a connection that lasts: it reconnects for ever and says what happens to it.
func serverOptions(log *slog.Logger) []nats.Option {
	link := outage.New(log, "disconnected from NATS; reconnecting", "reconnected to NATS")
	reported := outage.New(log, "NATS reported an error", "")
	return []nats.Option{
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.MaxReconnects(-1), nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				link.Failed(err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { link.Failed(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { link.Over("url", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			if errors.Is(err, nats.ErrSlowConsumer) {
				// The client has no room for the server's word that a pull is complete when nobody reads at that moment. It does
				// without; were it an entry, its sequence would be missed and it would be asked for again.
				log.Debug("NATS reported an error", "subject", subject, "error", err)
				return
			}
			reported.Failed(err, "subject", subject)
		}),
	}
}

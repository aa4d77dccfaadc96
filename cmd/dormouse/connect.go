package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/internal/outage"
	"dormouse/store/client"
)

// addConnectFlags adds the flags that say which NATS to talk to.
func addConnectFlags(cmd *cobra.Command) {
	cmd.Flags().String("nats-url", "", "`URL` of NATS server(s), comma separated (default "+nats.DefaultURL+
		", for serve the embedded server)")
	cmd.Flags().String("nats-context", "", "`NAME` of the nats CLI's context to connect with")
	cmd.Flags().String("nats-creds", "", "credentials `FILE` for NATS")
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
	if _, err := parseServers(t.url); t.url != "" && err != nil {
		return t, usageErrorf("--nats-url: %w", err)
	}
	if err := checkFileName(t.creds); err != nil {
		return t, usageErrorf("--nats-creds: %w", err)
	}
	return t, errors.Join(errs[:]...)
}

// dial connects as the flags say, and returns the prefix of JetStream's API. The connection reconnects for ever; should
// the library give it up all the same, closed hears why. extra options come last.
func (t target) dial(name string, closed func(error), extra ...nats.Option) (nc *nats.Conn, api string, err error) {
	options := []nats.Option{
		nats.Name(name), nats.Timeout(5 * time.Second),
		// The library would give up after two equal refusals of a login, which a rotation of credentials brings about.
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.ClosedHandler(func(nc *nats.Conn) { closed(closedError(nc.LastError())) }), nats.NoCallbacksAfterClientClose(),
	}
	if t.creds != "" {
		options = append(options, nats.UserCredentials(t.creds))
	}
	options = append(options, extra...)
	if t.context != "" {
		return connectContext(t.context, options...)
	}
	url := cmp.Or(t.url, nats.DefaultURL)
	nc, err = nats.Connect(url, options...)
	if err != nil {
		return nil, "", fmt.Errorf("connecting to NATS at %s: %w (is `dormouse serve` or a NATS server running there? set "+
			"--nats-url, --nats-context or --nats-creds)", publicServers(url), err)
	}
	return nc, jetstream.DefaultAPIPrefix, nil
}

func closedError(last error) error {
	if last == nil {
		last = nats.ErrConnectionClosed
	}
	return fmt.Errorf("the connection to NATS was closed for good: %w", last)
}

// pingInterval is how often a connection that is silent is probed. A server that hangs is left after three of them,
// instead of the library's six minutes: work goes on at another one.
const pingInterval = 3 * time.Second

// serverOptions make a connection that lasts and says what happens to it. refused hears what NATS does not permit.
func serverOptions(log *slog.Logger, refused func(error)) []nats.Option {
	link := outage.New(log, "disconnected from NATS; reconnecting", "reconnected to NATS")
	reported := outage.New(log, "NATS reported an error", "")
	return []nats.Option{
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.ReconnectWait(500 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				link.Failed(err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { link.Failed(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { link.Over("server", nc.ConnectedAddr()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if no := refusalOf(err); no != nil {
				refused(no)
			}
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			if refusedLogin(err) {
				link.Failed(err)
				return
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

// refusedLogin reports whether a server did not take the credentials. It is asked again: that passes when they are
// rotated.
func refusedLogin(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) ||
		errors.Is(err, nats.ErrAuthRevoked) || errors.Is(err, nats.ErrAccountAuthExpired)
}

// ownersOf connects to those who own the shards of a system.
func ownersOf(cmd *cobra.Command) (owners *client.Client, shut func(), err error) {
	nc, js, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	return client.New(nc, js), nc.Close, nil
}

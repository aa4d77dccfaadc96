package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"dormouse/store/client"
)

// connect connects a client command. The caller closes the connection. From then on the command's context ends also
// when NATS will never answer; ended tells why then, and run prints that instead of what came of it.
//
// The connection reconnects as long as the command has patience; while it does, nothing is printed.
func connect(cmd *cobra.Command, options ...jetstream.JetStreamOpt) (*nats.Conn, jetstream.JetStream, error) {
	t, err := targetOf(cmd)
	if err != nil {
		return nil, nil, err
	}
	ctx, end := context.WithCancelCause(cmd.Context())
	cmd.SetContext(ctx)
	nc, api, err := t.dial("dormouse "+cmd.Name(), func(err error) { end(natsEnd{err}) },
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if refused := refusalOf(err); refused != nil {
				end(natsEnd{refused})
			}
		}))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.NewWithAPIPrefix(nc, api, options...)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// natsEnd is why NATS will not answer a command.
type natsEnd struct{ error }

func (e natsEnd) Unwrap() error { return e.error }

// ended returns why NATS will never answer, if that is what ended the context of a command.
func ended(ctx context.Context) error {
	if end := (natsEnd{}); errors.As(context.Cause(ctx), &end) {
		return end
	}
	return nil
}

const otherCredentials = "--nats-creds, --nats-context or --nats-url"

// violation is how a server says what it does not permit.
var violation = regexp.MustCompile(`(?i)for (publish|subscription) to "([^"]*)"`)

// refusalOf returns what NATS does not permit, if err says so and the command needs it: the server forgets a consumer
// that nobody deletes.
func refusalOf(err error) error {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	what := fmt.Sprintf("%q", err)
	if found := violation.FindStringSubmatch(err.Error()); found != nil {
		if strings.Contains(found[2], ".CONSUMER.DELETE.") {
			return nil
		}
		do := "publish to"
		if strings.EqualFold(found[1], "subscription") {
			do = "subscribe to"
		}
		what = fmt.Sprintf("%s %q", do, found[2])
	}
	return fmt.Errorf("NATS does not permit these credentials to %s (have it permitted, or use others: %s)", what,
		otherCredentials)
}

// advise adds to an error what may be done about it, where the error itself does not know.
func advise(err error) error {
	if errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
		return fmt.Errorf("%w (these credentials are of a tenant, or of another account than the system's: use others, %s)",
			err, otherCredentials)
	}
	if errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, client.ErrNoOwner) {
		return fmt.Errorf("%w: JetStream does not answer (is it enabled on the servers? are jetstream_domain and "+
			"jetstream_api_prefix of the context right? others: %s)", err, otherCredentials)
	}
	return err
}

// Package jsapi asks JetStream's API where the client library would believe a publisher, or refuses what the server
// takes.
//
// The library reads a single message by a direct get if the stream allows it. The answer then has the server's facts
// in the same header block as the publisher's headers, and the first one of a name counts: the publisher's. The API's
// own answer is JSON, in which the two cannot be confused, and it comes from the stream's leader. Open ordered for
// messages in a row.
package jsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// defaultTimeout bounds a request whose context has no deadline.
const defaultTimeout = 5 * time.Second

// Subject returns the subject of a request, such as STREAM.INFO.LOGS, in the API that js speaks to.
func Subject(js jetstream.JetStream, request string) string {
	options := js.Options()
	switch {
	case options.Domain != "":
		return "$JS." + options.Domain + ".API." + request
	case options.APIPrefix != "":
		return strings.TrimSuffix(options.APIPrefix, ".") + "." + request
	}
	return jetstream.DefaultAPIPrefix + request
}

// Answer is the part that all answers have; embed it in what Ask and Decode fill in.
type Answer struct {
	Error *jetstream.APIError `json:"error"`
}

func (a *Answer) err() error {
	if a.Error == nil {
		return nil
	}
	return a.Error
}

// Ask sends a request, as JSON unless it is nil, and fills in the answer. A refusal is a *jetstream.APIError, and so
// errors.Is tells jetstream.ErrMsgNotFound and its like.
func Ask(ctx context.Context, js jetstream.JetStream, request string, body any, answer interface{ err() error }) error {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	msg, err := js.Conn().RequestWithContext(ctx, Subject(js, request), data)
	if err != nil {
		return err
	}
	return Decode(msg, answer)
}

// Decode fills in an answer that came by itself.
func Decode(msg *nats.Msg, answer interface{ err() error }) error {
	if len(msg.Data) == 0 { // the server's word that nobody hears the request
		return nats.ErrNoResponders
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("an answer of JetStream's that is none: %w", err)
	}
	return answer.err()
}

// IsPermanent reports whether a request that failed would fail in the same way for as long as nobody changes
// something: the server refuses it, the client cannot send it, or the connection was closed for good.
func IsPermanent(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Code < http.StatusInternalServerError &&
			api.Code != http.StatusTooManyRequests && api.Code != http.StatusRequestTimeout
	}
	for _, permanent := range []error{
		nats.ErrConnectionClosed, nats.ErrBadSubject, nats.ErrMaxPayload, nats.ErrPermissionViolation,
		jetstream.ErrInvalidSubject,
	} {
		if errors.Is(err, permanent) {
			return true
		}
	}
	return false
}

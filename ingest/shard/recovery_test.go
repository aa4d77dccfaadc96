package shard

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"dormouse/internal/extent"
	"dormouse/store/bucket"
	"dormouse/store/segment"
)

// hanging is a bucket whose gets do not come back until their time is over, but for one.
type hanging struct {
	Bucket
	answers int // the try that is answered; 0: none
	err     error
	tries   []time.Duration // how long each could wait
}

func (h *hanging) Get(ctx context.Context, _ extent.Segment) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	h.tries = append(h.tries, time.Until(deadline))
	if len(h.tries) == h.answers {
		return []byte("part"), h.err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestObjectThatDoesNotCome: a takeover waits for what it needs of the archive for two leases, and for one try half of
// that; for one that is not there it does not wait.
func TestObjectThatDoesNotCome(t *testing.T) {
	const lease = 10 * time.Second
	for name, tc := range map[string]struct {
		answers int
		err     error
		takes   time.Duration // at most; and at least what it took less than a try's pause
		want    error
	}{
		"at once":       {1, nil, 0, nil},
		"at last":       {2, nil, lease + time.Second, nil},
		"never":         {0, nil, 2 * lease, ErrArchiveUnread},
		"it is gone":    {1, bucket.ErrNotFound, 0, ErrArchiveUnread},
		"it is damaged": {1, segment.ErrCorrupt, 0, ErrArchiveUnread},
		"it fails now":  {1, errors.New("denied"), 2 * lease, ErrArchiveUnread},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangs := &hanging{answers: tc.answers, err: tc.err}
				c := &claim{Site: Site{Config: Config{Lease: lease, Bucket: hangs},
					Outages: NewOutages(slog.New(slog.DiscardHandler))}}
				began := time.Now()
				object := extent.Segment{Key: "0/checkpoint/a.tree"}
				data, err := unread(t.Context(), c, object, func(ctx context.Context) ([]byte, error) {
					return c.Bucket.Get(ctx, object)
				})
				took := time.Since(began)
				if !errors.Is(err, tc.want) || tc.want == nil && string(data) != "part" || took > tc.takes ||
					took < tc.takes-time.Second {
					t.Errorf("ended after %s with %q, %v", took, data, err)
				}
				for _, try := range hangs.tries {
					if try > lease {
						t.Errorf("one try may take %s", try)
					}
				}
			})
		})
	}
}

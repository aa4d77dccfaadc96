package shard

import (
	"bytes"
	"testing"
	"time"

	"dormouse/internal/wire"
)

// TestLagOfAFullBuffer: what is in the stream and not taken in counts, once it is seen.
func TestLagOfAFullBuffer(t *testing.T) {
	const some, entries = 5, 30
	o := claimed(t, func(c *Config) { c.BufferLimit, c.MaxBytes = 4<<10, 1<<30 })
	s, end := o.serve(t)
	for i := range entries {
		if i == some { // no others are taken in then, as nobody drains
			s.Until("the buffer to be full", o.site.Advance.IsFull)
		}
		s.Publish("logs.t.a", string(bytes.Repeat([]byte("x"), 1<<10)))
	}
	o.from.sawEnd(entries) // as the next look at the stream does
	if lag := o.Lag(); lag != entries {
		t.Errorf("the lag is %v, want %d", lag, entries)
	}
	var got wire.ShardStatus
	if o.Tell(&got); got.Applied == 0 || got.Applied > some || got.Oldest == 0 || o.Oldest().UnixNano() != got.Oldest {
		t.Errorf("%+v, the oldest of %s", got, o.Oldest())
	}
	end()
	s.Until("the owner to end", func() bool { o.use.RLock(); defer o.use.RUnlock(); return o.ended })
	if err := o.shut(); err != nil {
		t.Fatal(err)
	}
	if f, err := o.figures(); err != nil || !f.oldest.IsZero() || f.Entries == 0 || !o.Oldest().Equal(time.Time{}) {
		t.Errorf("after its end: %+v, %v", f, err)
	}
}

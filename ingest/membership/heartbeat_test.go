package membership

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// memory is a bucket that holds its keys' revisions. Nobody else writes to it, so a delete need not be checked.
type memory struct {
	jetstream.KeyValue
	mu   sync.Mutex
	keys map[string]uint64
	last uint64
}

func (m *memory) Create(_ context.Context, key string, _ []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return m.put(key, 0)
}

func (m *memory) Update(_ context.Context, key string, _ []byte, revision uint64) (uint64, error) {
	return m.put(key, revision)
}

func (m *memory) put(key string, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys[key] != revision {
		return 0, jetstream.ErrKeyRevisionMismatch
	}
	m.last++
	m.keys[key] = m.last
	return m.last, nil
}

func (m *memory) Delete(_ context.Context, key string, _ ...jetstream.KVDeleteOpt) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, key)
	return nil
}

func (m *memory) has(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys[key] != 0
}

// TestHeartbeatShowsOneKey: the node key while the node may take shards, else the waiting key, and none in the end. A
// node that withdraws comes back after a pause, which is longer the second time.
func TestHeartbeatShowsOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const term = 10 * time.Second
		var mu sync.Mutex
		var away error
		setAway := func(err error) { mu.Lock(); defer mu.Unlock(); away = err }
		check := func(context.Context) error { mu.Lock(); defer mu.Unlock(); return away }
		kv := &memory{keys: make(map[string]uint64)}
		m := New(&Leases{kv: kv, node: "a", term: term}, check, slog.New(slog.DiscardHandler))
		m.SetShards([]shardid.Shard{0, 1})
		m.hear(put(wire.NodeKeys+"b", "b", 1))
		setAway(errors.New("away"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); m.heartbeat.run(ctx) }()

		shows := func(when string, eligible bool) {
			t.Helper()
			synctest.Wait()
			node, waiting := kv.has(wire.NodeKeys+"a"), kv.has(wire.WaitingKeys+"a")
			if node != eligible || waiting == eligible {
				t.Errorf("%s: the node key is shown: %v, the waiting key: %v", when, node, waiting)
			}
			if mine, _ := m.Share(0); (mine > 0) != eligible {
				t.Errorf("%s: the node has %d shards for its share", when, mine)
			}
		}
		shows("the bucket is away", false)
		setAway(nil)
		time.Sleep(2 * term)
		shows("the bucket answers", true)
		setAway(errors.New("away"))
		time.Sleep(2 * term)
		shows("the bucket is away from one that took part", true)
		setAway(nil)

		m.Withdraw(errors.New("no snapshot"))
		shows("it withdrew", false)
		time.Sleep(term - 1) // pauses are random by half
		shows("less than the pause later", false)
		time.Sleep(2*term + 1)
		shows("it is back", true)
		m.Withdraw(errors.New("no snapshot"))
		time.Sleep(2*term - 1)
		shows("it withdrew again", false)
		time.Sleep(4*term + 1)
		shows("it is back again", true)

		cancel()
		<-done
		if len(kv.keys) > 0 {
			t.Errorf("after the end it shows %v", kv.keys)
		}
	})
}

package topology

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"dormouse/internal/shardid"
	"dormouse/internal/wire"
)

// FuzzSourceOf: the metadata of streams is anybody's. It says that a stream is no shard, what shard it is, or is
// refused.
func FuzzSourceOf(f *testing.F) {
	f.Add("0", "logs", "4", "true")
	f.Add("4294967296", "", "", "")
	f.Add("-1", "a b", "1", "yes")
	f.Fuzz(func(t *testing.T, shard, prefix, partitions, managed string) {
		info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Name: "S",
			Metadata: map[string]string{wire.MetadataShard: shard, wire.MetadataPrefix: prefix,
				wire.MetadataPartitions: partitions, wire.MetadataManaged: managed}}}
		s, ok, err := sourceOf(info)
		if err != nil {
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("error %v does not wrap ErrRefused", err)
			}
			return
		}
		if again, err := shardid.Parse(shard); !ok || err != nil || again != s.Shard || s.Prefix == "" ||
			s.Partitions < 2 || s.Partitions > MaxShards {
			t.Fatalf("%q %q %q %q is %+v, %v, %v", shard, prefix, partitions, managed, s, ok, err)
		}
	})
}

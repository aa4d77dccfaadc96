package shard

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"dormouse/internal/extent"
)

// rememberedSegments is how many committed segments an owner knows again: workers ask again within seconds, and one
// that uses a name twice does it as soon. A later one is not noticed while its segment is not live.
const rememberedSegments = 4096

// segmentMemory knows the commits that were accepted last, by hashes of their segments' keys and of what they offered.
// The zero segmentMemory is empty.
type segmentMemory struct {
	known map[uint64]uint64
	order []uint64 // a ring
	next  int      // in order, when that is full
}

// offered returns a hash of what a commit offers of its segment.
func offered(extents []extent.Extent) uint64 {
	h := xxhash.New()
	var row [48]byte
	for _, e := range extents {
		_, _ = h.WriteString(e.Log) // hashing does not fail
		for i, n := range [...]uint64{e.First, e.Last, e.Count, e.Bytes, uint64(e.MinTime), uint64(e.MaxTime)} {
			binary.LittleEndian.PutUint64(row[8*i:], n)
		}
		_, _ = h.Write(row[:])
	}
	return h.Sum64()
}

// has returns the hash of what was offered with a segment that was committed.
func (m *segmentMemory) has(key string) (offer uint64, ok bool) {
	offer, ok = m.known[xxhash.Sum64String(key)]
	return offer, ok
}

func (m *segmentMemory) add(key string, offer uint64) {
	hash := xxhash.Sum64String(key)
	if _, known := m.known[hash]; known {
		return
	}
	if m.known == nil {
		m.known = make(map[uint64]uint64)
	}
	m.known[hash] = offer
	if len(m.order) < rememberedSegments {
		m.order = append(m.order, hash)
		return
	}
	delete(m.known, m.order[m.next])
	m.order[m.next] = hash
	m.next = (m.next + 1) % rememberedSegments
}

package shard

import "github.com/cespare/xxhash/v2"

// rememberedSegments is how many committed segments an owner knows again: workers ask again within seconds, and one
// that uses a name twice does it as soon. A later one is not noticed; an index in the catalog would cost a row for each
// segment.
const rememberedSegments = 4096

// segmentMemory knows the segments that were committed last, by a hash of their keys. The zero segmentMemory is empty.
type segmentMemory struct {
	known map[uint64]bool
	order []uint64 // a ring
	next  int      // in order, when that is full
}

func (m *segmentMemory) has(key string) bool { return m.known[xxhash.Sum64String(key)] }

func (m *segmentMemory) add(key string) {
	hash := xxhash.Sum64String(key)
	if m.known[hash] {
		return
	}
	if m.known == nil {
		m.known = make(map[uint64]bool)
	}
	m.known[hash] = true
	if len(m.order) < rememberedSegments {
		m.order = append(m.order, hash)
		return
	}
	delete(m.known, m.order[m.next])
	m.order[m.next] = hash
	m.next = (m.next + 1) % rememberedSegments
}

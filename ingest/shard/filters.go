package shard

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"dormouse/internal/extent"
)

// filters say which logs a fresh segment cannot hold, so that a read of a log leaves it out. Fresh segments have logs
// of anywhere in the shard, and all that a tree knows of them are their first and last ones.
//
// They are in memory only, and there is one for each fresh segment that this owner has committed, or whose table of
// contents its claim has read. A segment without one may hold any log. Whoever has an older tree may ask for a segment
// whose filter is gone, which costs a request and no entry.
type filters struct {
	mu struct {
		sync.RWMutex
		of    map[string][]byte // by the segment's key
		bytes int
	}
}

const (
	filterBits     = bloom.FilterPolicy(10) // for each log: one in a hundred is looked for in vain
	maxFilterBytes = 8 << 20                // of one shard; segments beyond that have none
)

func newFilters() *filters {
	f := &filters{}
	f.mu.of = make(map[string][]byte)
	return f
}

// add makes the filter of a fresh segment of all that it holds.
func (f *filters) add(key string, contents []extent.Extent) {
	if len(contents) == 0 {
		return
	}
	writer := filterBits.NewWriter(pebble.TableFilter)
	var log []byte
	for _, e := range contents {
		log = append(log[:0], e.Log...)
		writer.AddKey(log)
	}
	filter := writer.Finish(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, has := f.mu.of[key]; has || f.mu.bytes+len(filter) > maxFilterBytes {
		return
	}
	f.mu.of[key] = filter
	f.mu.bytes += len(filter)
}

// drop forgets the filters of segments that are not live any more.
func (f *filters) drop(segments []extent.Summary) {
	if len(segments) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range segments {
		f.mu.bytes -= len(f.mu.of[s.Object.Key])
		delete(f.mu.of, s.Object.Key)
	}
}

// mayHold reports whether a segment may hold entries of a log.
func (f *filters) mayHold(key, log string) bool {
	f.mu.RLock()
	filter := f.mu.of[key]
	f.mu.RUnlock()
	return filter == nil || filterBits.MayContain(pebble.TableFilter, filter, []byte(log))
}

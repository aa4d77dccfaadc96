package scheduler

import "strings"

// place says where a log is. A log is in exactly one place, so none can be forgotten and none is found twice.
type place uint8

const (
	inSlot   place = iota + 1 // on the list of slots[at]
	inOutbox                  // on the outbox
	inFlight                  // in batch number at, with a publisher
)

// state of an active log; a log that is idle has none.
type state uint8

const (
	armed  state = iota + 1 // has a deadline
	queued                  // ready: the workers know of it, or are being told
)

// logState is all that is kept in memory of an active log, besides its LogID and the table's entry for it: 80 bytes.
//
// Invariants: 0 < first <= last, count > 0. armed implies inSlot.
type logState struct {
	id          string
	first, last uint64 // buffered sequences
	bytes       uint64 // buffered payload and header bytes
	// deadline, nanoseconds since the scheduler's start; 0 once it is served, or ready for another reason
	due        int64
	at         int64  // number of the slot or of the batch
	count      uint32 // buffered entries
	prev, next uint32 // on the list of its place

	blockPrev, blockNext uint32 // on the list of its first's block

	state     state
	place     place
	collected bool // armed while collecting: overdue all along
	odd       bool // the number of changes of the policies, when it was armed, was odd
}

// Chunks of the slab; growing never moves a state.
const chunkStates = 1024

// shrinkStates is the size below which giving memory back is not worth the copying.
const shrinkStates = 4 * chunkStates

// table finds the state of a log. States live in a slab and name each other by index, which costs the garbage collector
// nothing and half of a pointer's memory; index 0 is nobody.
type table struct {
	index  map[string]uint32
	chunks [][]logState
	free   uint32 // head of the list of unused states, linked by next
	used   uint32 // states handed out since the slab began, nobody included
	firsts firsts
}

func (t *table) reset() {
	*t = table{index: make(map[string]uint32), used: 1}
}

func (t *table) get(i uint32) *logState { return &t.chunks[i/chunkStates][i%chunkStates] }

// add makes the state of a log that has none. It clones the LogID, the one allocation of a log that wakes.
func (t *table) add(id string, first uint64) (uint32, *logState) {
	i := t.free
	if i != 0 {
		t.free = t.get(i).next
	} else {
		i = t.used
		t.used++
		if int(i/chunkStates) == len(t.chunks) {
			t.chunks = append(t.chunks, make([]logState, chunkStates))
		}
	}
	l := t.get(i)
	*l = logState{id: strings.Clone(id), first: first}
	t.index[l.id] = i
	t.addFirst(i, l)
	return i, l
}

// remove forgets a log that is on no list any more.
func (t *table) remove(i uint32) {
	l := t.get(i)
	delete(t.index, l.id)
	t.removeFirst(l)
	*l = logState{next: t.free}
	t.free = i
}

func (t *table) setFirst(i uint32, l *logState, first uint64) {
	t.removeFirst(l)
	l.first = first
	t.addFirst(i, l)
}

// sparse reports whether the table holds far more memory than its logs need, since neither a Go map nor the slab
// shrinks.
func (t *table) sparse() bool {
	return t.used > shrinkStates && len(t.index) < int(t.used)/4 || len(t.index) == 0 && t.used > chunkStates
}

// list is a doubly linked list of states; the zero list is empty.
type list struct{ head, tail uint32 }

func (t *table) push(ls *list, i uint32) {
	l := t.get(i)
	l.prev, l.next = ls.tail, 0
	if ls.tail != 0 {
		t.get(ls.tail).next = i
	} else {
		ls.head = i
	}
	ls.tail = i
}

func (t *table) unlink(ls *list, i uint32) {
	l := t.get(i)
	if l.prev != 0 {
		t.get(l.prev).next = l.next
	} else {
		ls.head = l.next
	}
	if l.next != 0 {
		t.get(l.next).prev = l.prev
	} else {
		ls.tail = l.prev
	}
	l.prev, l.next = 0, 0
}

// compactLocked moves the remaining states into a table of their size.
func (s *Scheduler) compactLocked() {
	old := s.mu.table
	s.mu.table.reset()
	s.mu.tables++
	fresh := &s.mu.table
	move := func(i uint32) uint32 {
		from := old.get(i)
		n, to := fresh.add(from.id, from.first)
		id, blockPrev, blockNext := to.id, to.blockPrev, to.blockNext
		*to = *from
		to.id, to.prev, to.next, to.blockPrev, to.blockNext = id, 0, 0, blockPrev, blockNext
		return n
	}
	relist := func(ls *list) {
		var moved list
		for i := ls.head; i != 0; i = old.get(i).next {
			fresh.push(&moved, move(i))
		}
		*ls = moved
	}
	for _, sl := range s.mu.slots {
		relist(&sl.logs)
	}
	relist(&s.mu.outbox)
	for _, i := range old.index {
		if old.get(i).place == inFlight {
			move(i)
		}
	}
}

package scheduler

// firstsBlock is the number of sequences that are kept together.
const firstsBlock = 1024

// firsts finds the lowest of the logs' first sequences: the logs whose first lies in one block are on a list, and the
// lowest block in use is known. That lowest block is a bound that costs nothing, and enough to trim a stream; to be
// exact is to walk over its list, of no more logs than a block has sequences. A heap would be exact at once, and cost a
// logarithm for each log.
//
// Invariant: low is the smallest key of blocks, if there is one; blocks has the head of each list, none of which is
// empty.
type firsts struct {
	blocks map[uint64]uint32
	low    uint64
}

func (t *table) addFirst(i uint32, l *logState) {
	f := &t.firsts
	block := l.first / firstsBlock
	if f.blocks == nil {
		f.blocks = make(map[uint64]uint32)
	}
	if len(f.blocks) == 0 || block < f.low {
		f.low = block
	}
	l.blockPrev, l.blockNext = 0, f.blocks[block]
	if l.blockNext != 0 {
		t.get(l.blockNext).blockPrev = i
	}
	f.blocks[block] = i
}

// removeFirst undoes addFirst. The search for the next block in use takes, over time, one step for every block of the
// stream.
func (t *table) removeFirst(l *logState) {
	f := &t.firsts
	block := l.first / firstsBlock
	if l.blockNext != 0 {
		t.get(l.blockNext).blockPrev = l.blockPrev
	}
	switch {
	case l.blockPrev != 0:
		t.get(l.blockPrev).blockNext = l.blockNext
	case l.blockNext != 0:
		f.blocks[block] = l.blockNext
	default:
		delete(f.blocks, block)
	}
	l.blockPrev, l.blockNext = 0, 0
	if len(f.blocks) == 0 || block != f.low || f.blocks[block] != 0 {
		return
	}
	for f.low++; f.blocks[f.low] == 0; f.low++ {
	}
}

// bound returns a lower bound of the lowest first sequence, less than a block too low.
func (f *firsts) bound() (uint64, bool) {
	return max(f.low*firstsBlock, 1), len(f.blocks) > 0
}

// lowest returns the log with the lowest first sequence, nil when there is none.
func (t *table) lowest() (lowest *logState) {
	for i := t.firsts.blocks[t.firsts.low]; i != 0; {
		l := t.get(i)
		if lowest == nil || l.first < lowest.first {
			lowest = l
		}
		i = l.blockNext
	}
	return lowest
}

package scheduler

// firstsBlock is the number of sequences that firsts does not tell apart.
const firstsBlock = 1024

// firsts knows the lowest of the logs' first sequences, to within a block: how many lie in each block, and the lowest
// block in use. An ordered structure would be exact and cost a logarithm and a node for each log; trimming a stream needs
// neither.
//
// Invariant: low is the smallest key of blocks, if there is one.
type firsts struct {
	blocks map[uint64]uint32
	low    uint64
}

func (f *firsts) add(first uint64) {
	block := first / firstsBlock
	if f.blocks == nil {
		f.blocks = make(map[uint64]uint32)
	}
	if len(f.blocks) == 0 || block < f.low {
		f.low = block
	}
	f.blocks[block]++
}

// remove undoes an add. The search for the next block in use takes, over time, one step for every block of the stream.
func (f *firsts) remove(first uint64) {
	block := first / firstsBlock
	if f.blocks[block]--; f.blocks[block] > 0 {
		return
	}
	delete(f.blocks, block)
	if len(f.blocks) == 0 || block != f.low {
		return
	}
	for f.low++; f.blocks[f.low] == 0; f.low++ {
	}
}

func (f *firsts) lowest() (uint64, bool) {
	return max(f.low*firstsBlock, 1), len(f.blocks) > 0
}

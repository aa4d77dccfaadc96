/* Deleting: cutter.go. Its steps are the owner's: owner.pml includes this among them. One cut is made at most. */

#ifdef CUTS
	/* cutter.go, cut: up to the last entry that the stream has; committer.go, recordCut and commit. */
	:: d_step { idle(n) && cuts == 0 && node[n].cut == 0 && acked > 0 -> begin(n, CUT, 0, acked) }
	/* merger.go, cut, and committer.go, drop: a segment of which nothing is left is dropped unread. */
#define droppable(n, p) (idle(n) && mayHave(RUN(node[n].tree, p), node[n].cut) && \
	whole(RUN(node[n].tree, p), node[n].cut))
	:: d_step { droppable(n, 0) -> begin(n, MERGE, 0, 0); node[n].pinputs = BIT(RUN(node[n].tree, 0)) }
	:: d_step { droppable(n, 1) -> begin(n, MERGE, 0, 0); node[n].pinputs = BIT(RUN(node[n].tree, 1)) }
	:: d_step { droppable(n, 2) -> begin(n, MERGE, 0, 0); node[n].pinputs = BIT(RUN(node[n].tree, 2)) }
	/* cutter.go, tell, of whichever owner is asked: delete --wait goes on when nothing is left and the floor is above. */
	:: d_step { node[n].does == SERVING && node[n].cut > 0 && !written && node[n].floor >= node[n].cut &&
		!left(node[n].tree, node[n].cut) -> written = 1; check() }
	/* cmd/dormouse/delete.go, wait: then it looks at all objects, and ends when none has anything of it. */
	:: d_step { written && !ended && (TOTAL(inBucket) & UPTO(cuts)) == 0 -> ended = 1 }
#endif

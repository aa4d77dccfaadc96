/* Segments that are put and offered, with TREE: the workers (workers/drain.go, pack.go, commit.go, merge.go), the
 * owner that plans merges (merger.go), and the judge (judge.go). They are steps of the owner: owner.pml includes
 * this among them. */

/* workers/request.go, ask: the subject has the epoch, so that no other owner hears of it. Only what cuts do to young
 * objects needs that. */
#ifdef CUTS
#define workOf(n) node[n].epoch
#define hears(n, k) (segment[k].epoch == node[n].epoch)
#else
#define workOf(n) 0
#define hears(n, k) true
#endif

	/* drain.go, drain; workers/drain.go, archiveBatch; workers/pack.go, flush: a worker drains a run of what is buffered,
	 * perhaps not from its beginning, and puts it. */
	:: atomic { node[n].does == SERVING && node[n].buffer != 0 && segments - merges < SEGMENTS - MERGES ->
		f = LOWEST(node[n].buffer);
#ifndef DRAIN_FIRST /* else a smaller search */
		do
		:: node[n].buffer & BIT(f + 1) -> f++
		:: break
		od;
#endif
		i = f;
		do
		:: node[n].buffer & BIT(i + 1) -> i++
		:: break
		od;
		d_step {
			segments++;
			segment[segments].has = RANGE(f, i); segment[segments].epoch = workOf(n);
			inBucket = inBucket | BIT(segments);
			i = 0; f = 0
		}
	   }

#if MERGES > 0
	/* merger.go, plan, cut and queue; workers/merge.go, open, write and flush: a worker reads live segments and puts
	 * one that has what they have, without what was cut when the merge was planned. The inputs are any, and not only
	 * those which tree/plan.go names. One alone is written anew for what is cut of it. */
	:: atomic { node[n].does == SERVING && node[n].tree != 0 && merges < MERGES && segments < SEGMENTS ->
		i = LIVE(node[n].tree);
		if
		:: skip
		:: LENGTH(node[n].tree) > 1 -> i = i & ~BIT(RUN(node[n].tree, 0))
		:: LENGTH(node[n].tree) > 1 -> i = i & ~BIT(RUN(node[n].tree, LENGTH(node[n].tree) - 1))
		:: LENGTH(node[n].tree) > 2 -> i = i & ~BIT(RUN(node[n].tree, 1))
#ifdef CUTS
		:: LENGTH(node[n].tree) > 2 -> i = ONE(RUN(node[n].tree, 0))
		:: LENGTH(node[n].tree) > 2 -> i = ONE(RUN(node[n].tree, 1))
		:: LENGTH(node[n].tree) > 2 -> i = ONE(RUN(node[n].tree, 2))
#endif
		fi;
		f = TOTAL(i) & ~UPTO(node[n].cut);
		d_step {
			if
			:: f != 0 && (i & ~inBucket) == 0 && ((i & (i - 1)) || left(node[n].tree, node[n].cut) &&
				TOTAL(i) != f) ->
				segments++; merges++;
				segment[segments].has = f; segment[segments].inputs = i; segment[segments].epoch = workOf(n);
#ifdef CUTS
				segment[segments].clean = (node[n].cut > 0);
#endif
				inBucket = inBucket | BIT(segments)
			:: else
			fi;
			i = 0; f = 0
		}
	   }
#endif

/* judge.go, tooLate: not what was named long ago, nor what the owner deletes. */
#ifdef LATE_ACCEPTED
#define inTime(n, k) !(node[n].condemned & BIT(k))
#else
#ifdef CONDEMNED_ACCEPTED
#define inTime(n, k) ((k) > aged)
#else
#define inTime(n, k) ((k) > aged && !(node[n].condemned & BIT(k)))
#endif
#endif
#define offers(n, k) (idle(n) && (k) <= segments && hears(n, k) && inTime(n, k))

/* workers/commit.go, commit, offers a segment to any owner, again and again; judge.go, decide; committer.go, commit. */
#define accepted(n, k) (offers(n, k) && segment[k].inputs == 0 && \
	accepts(n, LOWEST(segment[k].has), HIGHEST(segment[k].has)))

/* workers/merge.go, merge, offers the output likewise; judge.go, merge; committer.go, mergeOf and commit. What the
 * output has must be what the inputs do, or less by what is cut. */
#define merged(n, k) (offers(n, k) && segment[k].inputs != 0 && replaceable(node[n].tree, segment[k].inputs) && \
	!(LIVE(node[n].tree) & BIT(k)) && (segment[k].has == TOTAL(segment[k].inputs) || \
	segment[k].clean && segment[k].has == (TOTAL(segment[k].inputs) & ~UPTO(node[n].cut))))

#define offer(n, k) \
	:: d_step { accepted(n, k) -> beginCommit(n, k) } \
	:: d_step { merged(n, k) -> beginMerge(n, k) }
	offer(n, 1)
	offer(n, 2)
	offer(n, 3)
#if SEGMENTS > 3
	offer(n, 4)
#endif
#if SEGMENTS > 4
	offer(n, 5)
#endif
#if SEGMENTS > 5
	offer(n, 6)
#endif

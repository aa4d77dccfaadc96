/*
 * The tree, store/tree, and what is made of it: which segments are live, in which order they are read. Only with TREE.
 * A tree is up to three runs of one segment each, oldest first, in three bits each, since the model has one log.
 */
#define RUN(t, p) (((t) >> (3 * (p))) & 7)
#define ONE(k) (BIT(k) & ~1) /* as a mask of segments; none for 0 */
#define LIVE(t) (ONE(RUN(t, 0)) | ONE(RUN(t, 1)) | ONE(RUN(t, 2)))
#define LENGTH(t) (RUN(t, 2) > 0 -> 3 : (RUN(t, 1) > 0 -> 2 : (RUN(t, 0) > 0 -> 1 : 0)))
#define HAS(t) (segment[RUN(t, 0)].has | segment[RUN(t, 1)].has | segment[RUN(t, 2)].has)
#define BEFORE(j, k) ((k) == 0 || HIGHEST(segment[j].has) < LOWEST(segment[k].has))
#define ASCENDING(t) (BEFORE(RUN(t, 0), RUN(t, 1)) && BEFORE(RUN(t, 1), RUN(t, 2)))

/* What segments of a mask have together. */
#define PART(m, k) ((m) & BIT(k) -> segment[k].has : 0)
#define TOTAL(m) (PART(m, 1) | PART(m, 2) | PART(m, 3) | PART(m, 4) | PART(m, 5) | PART(m, 6) | PART(m, 7))

/* tree/tree.go, Commit. */
inline commitTo(runs, k) {
	assert(LENGTH(runs) < 3); /* each run has an entry of its own */
	runs = runs | (k << (3 * LENGTH(runs)))
}

/* tree/tree.go, Replace, of inputs that are live: k takes the place of the oldest of them, nothing does if k is 0. */
inline replaceIn(runs, replaced, k) {
	if
	:: k > 0 && (replaced & ONE(RUN(runs, 0))) -> runs = (runs & ~7) | k; f = k
	:: k > 0 && !(replaced & ONE(RUN(runs, 0))) && (replaced & ONE(RUN(runs, 1))) -> runs = (runs & ~56) | (k << 3); f = k
	:: k > 0 && !(replaced & (ONE(RUN(runs, 0)) | ONE(RUN(runs, 1)))) -> runs = (runs & ~448) | (k << 6); f = k
	:: k == 0 -> f = 0
	fi;
	/* The others leave, from the newest on. */
	if
	:: RUN(runs, 2) > 0 && RUN(runs, 2) != f && (replaced & ONE(RUN(runs, 2))) -> runs = runs & 63
	:: else
	fi;
	if
	:: RUN(runs, 1) > 0 && RUN(runs, 1) != f && (replaced & ONE(RUN(runs, 1))) -> runs = (runs & 7) | ((runs >> 6) << 3)
	:: else
	fi;
	if
	:: RUN(runs, 0) > 0 && RUN(runs, 0) != f && (replaced & ONE(RUN(runs, 0))) -> runs = runs >> 3
	:: else
	fi;
	f = 0
}

/* tree/tree.go, find: all of the inputs are live, and nothing that is live lies between them. */
#ifdef REPLACE_UNCHECKED
#define replaceable(t, m) (((m) & LIVE(t)) != 0)
#else
#ifdef NEIGHBOURS_UNCHECKED
#define replaceable(t, m) (((m) & ~LIVE(t)) == 0)
#else
#define replaceable(t, m) (((m) & ~LIVE(t)) == 0 && \
	!(((m) & ONE(RUN(t, 0))) && ((m) & ONE(RUN(t, 2))) && !((m) & ONE(RUN(t, 1)))))
#endif
#endif

#ifdef CUTS
/* tree/cuts.go, mayHave: the object of a segment may have something of the cut up to c. */
#define mayHave(k, c) ((k) > 0 && !segment[k].clean && LOWEST(segment[k].has) <= (c))
/* extent/cut.go, Whole: all that a segment has is cut. */
#define whole(k, c) (HIGHEST(segment[k].has) <= (c))
/* tree/cuts.go, Left: is anything? */
#define left(t, c) (mayHave(RUN(t, 0), c) || mayHave(RUN(t, 1), c) || mayHave(RUN(t, 2), c))
#else
#define mayHave(k, c) false
#define whole(k, c) false
#define left(t, c) false
#endif

/* live and gone := the tree and its cut as of record x, from the newest checkpoint and the records since, which must be
 * there: recovery.go, readTree; manifest/record.go, Apply. */
inline readTree(x) {
	newest = x;
	findCheckpoint();
	i = 1; live = 0; gone = 0;
	if
	:: newest > 0 -> live = image[rec[newest].to].tree; gone = image[rec[newest].to].cut; i = rec[newest].from + 1
	:: else
	fi;
	do
	:: i > x -> break
	:: else ->
		if
		:: rec[i].kind == COMMIT -> commitTo(live, rec[i].segment)
		:: rec[i].kind == MERGE -> replaceIn(live, rec[i].inputs, rec[i].segment)
		:: rec[i].kind == CUT -> gone = rec[i].to
		:: else
		fi;
		i++
	od;
	i = 0; newest = 0
}

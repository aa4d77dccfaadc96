/*
 * What the steps of an owner do to its node: disk.go and ledger.go (applyRecord, applyOwn, wipe), claim.go (trust,
 * gap), manifest/manifest.go (readLast, walk, confirmed, leftOut).
 */

/* manifest/manifest.go, Append returns: nothing of the append is kept. */
inline clearAppend(n) {
	node[n].step = NONE; node[n].kind = 0; node[n].pfrom = 0; node[n].pto = 0; node[n].pfloor = 0
#ifdef TREE
	; node[n].psegment = 0; node[n].pinputs = 0
#endif
#ifdef SURVIVORS
	; node[n].fromgen = 0; node[n].gen = 0
#ifdef ID_KEPT
	; node[n].stored = 0
#endif
#endif
}

/* disk.go, forget, or the disk is lost. */
inline wipe(n) {
	node[n].applied = 0; node[n].at = 0; node[n].atgen = 0; node[n].floor = 0; node[n].catalog = 0; node[n].buffer = 0
}

/* n serves no more: owner.go, Run returns, or the process ends. What flies goes on flying, so its content and what it
 * expects are kept. */
inline stop(n) {
	node[n].does = DOWN; node[n].step = NONE;
	if
	:: !node[n].flying -> clearAppend(n); node[n].epoch = 0; node[n].known = 0
	:: else
	fi
#ifdef TREE
	; node[n].tree = 0; node[n].cut = 0; node[n].catalog = 0; node[n].waste = 0; node[n].wasted = 0;
	node[n].condemned = 0; node[n].dead = 0; node[n].asof = 0; node[n].image = 0; node[n].pending = 0;
	node[n].deadImages = 0; node[n].condemnedImages = 0
#endif
#ifdef SURVIVORS
	; node[n].endgen = 0; node[n].past = 0; node[n].pastgen = 0; node[n].snap = 0;
	if
	:: claims == CLAIMS -> wipe(n) /* nobody will claim again, see forget */
	:: else
	fi
#ifdef SCAN_UNNAMED
	; node[n].begun = 0
#endif
#ifdef PURGE_UNLOOKED
	; node[n].has = 0
#endif
#endif
}

/* ledger.go, apply: record x is applied to n's disk, in one batch. */
inline applyRecord(n, x) {
	if
	:: rec[x].kind == COMMIT ->
		node[n].catalog = node[n].catalog | RANGE(rec[x].from, rec[x].to);
		node[n].buffer = node[n].buffer & ~RANGE(rec[x].from, rec[x].to)
	:: else
	fi;
	node[n].at = x; node[n].atgen = rec[x].gen; node[n].floor = rec[x].floor
}

/* append.go, append: the same for a record that n has appended, which it need not read, as it may be purged by now. */
inline applyOwn(n) {
	if
	:: node[n].kind == COMMIT ->
		node[n].catalog = node[n].catalog | RANGE(node[n].pfrom, node[n].pto);
		node[n].buffer = node[n].buffer & ~RANGE(node[n].pfrom, node[n].pto)
#ifdef TREE
		; commitTo(node[n].tree, node[n].psegment)
	:: node[n].kind == MERGE -> /* tree/tree.go, Replace; garbage.go, add */
		replaceIn(node[n].tree, node[n].pinputs, node[n].psegment);
		node[n].waste = node[n].waste | node[n].pinputs;
		node[n].wasted = node[n].known
	:: node[n].kind == CHECKPOINT -> node[n].image = node[n].pto
#endif
#ifdef CUTS
	:: node[n].kind == CUT -> /* ledger.go, cutLocked */
		node[n].cut = node[n].pto;
		node[n].buffer = node[n].buffer & ~UPTO(node[n].pto);
		deleted = node[n].pto /* cutter.go, cut, returns, once there is a checkpoint that has it */
#endif
	:: else
	fi;
	node[n].at = node[n].known; node[n].floor = node[n].pfloor;
#ifdef SURVIVORS
	node[n].atgen = node[n].gen;
	if
	:: node[n].kind == CHECKPOINT ->
		node[n].snap = node[n].known
#ifdef PURGE_UNLOOKED
		; node[n].has = node[n].pfrom
#endif
	:: else
	fi
#else
	node[n].atgen = rec[node[n].known].gen
#endif
}

/* The last record's batch can be lost: disk.go, commit does not sync. */
#ifdef SURVIVORS
#define undoable(n) (node[n].at > kept && same(node[n].at, node[n].atgen) && !vain(node[n].at) && \
	rec[node[n].at].prev >= kept)
#else
#define undoable(n) (node[n].at > kept && node[n].at <= last && rec[node[n].at].gen == node[n].atgen)
#endif

/* The batch of the last record (ledger.go, apply) is lost from n's disk. */
inline undoRecord(n) {
	if
	:: rec[node[n].at].kind == COMMIT ->
		f = RANGE(rec[node[n].at].from, rec[node[n].at].to);
		node[n].catalog = node[n].catalog & ~f;
		node[n].buffer = node[n].buffer | (f & UPTO(node[n].applied));
		f = 0
	:: else
	fi;
#ifdef SURVIVORS
	node[n].at = rec[node[n].at].prev;
#else
	node[n].at--;
#endif
	node[n].atgen = rec[node[n].at].gen; node[n].floor = rec[node[n].at].floor
}

/* The batch of the last entry (ledger.go, takeIn) is lost from n's disk. */
inline undoEntry(n) {
	node[n].buffer = node[n].buffer & ~BIT(node[n].applied);
	node[n].applied--
}

/* committer.go, commit: a record begins to be appended, with the floor as it is. */
inline begin(n, x, y, z) {
	node[n].kind = x; node[n].pfrom = y; node[n].pto = z; node[n].pfloor = floorOf(n); node[n].step = TRY
}
#ifdef TREE
/* committer.go, judge: the commit of a segment. */
inline beginCommit(n, k) {
	begin(n, COMMIT, LOWEST(segment[k].has), HIGHEST(segment[k].has));
	node[n].psegment = k
}

/* committer.go, mergeOf: the output of a merge. */
inline beginMerge(n, k) {
	begin(n, MERGE, 0, 0);
	node[n].psegment = k; node[n].pinputs = segment[k].inputs
#ifdef MERGE_FORGETS /* what was planned before the cut is taken for written without what is cut */
	; segment[k].clean = (node[n].cut > 0)
#endif
}
#endif

/* claim.go, trustedPosition: the record that the disk is as of is another one, or gone. */
#define replaced(n) (node[n].at > last || node[n].at >= kept && node[n].at > 0 && node[n].atgen != ANYONES && \
	rec[node[n].at].gen != node[n].atgen)
#ifdef GONE_TRUSTED
#define untrusted(n) replaced(n)
#else
#define untrusted(n) (replaced(n) || REBUILD && node[n].at > 0 && node[n].at < kept)
#endif

/* claim.go, recover, before its scan: trustedPosition; recovery.go, readTree and compare. */
inline trust(n) {
	if
	:: untrusted(n) -> wipe(n)
	:: else
	fi;
	newest = node[n].known;
	findCheckpoint();
	if
	:: newest > 0 && node[n].at < rec[newest].from ->
		node[n].catalog = node[n].catalog | rec[newest].to;
		node[n].buffer = 0; node[n].applied = 0;
		node[n].at = rec[newest].from; node[n].floor = 0;
#ifdef LOAD_UNNAMED
		node[n].atgen = ANYONES
#else
		node[n].atgen = rec[newest].gen
#endif
	:: else
	fi;
	newest = 0
}

#ifdef SURVIVORS
/* Nobody will claim again, so that the disks of nodes which are down make no difference. It makes the search smaller,
 * and is nothing of the program. */
inline forget() {
	i = 0;
	do
	:: i < NODES ->
		if
		:: i != n && node[i].does == DOWN -> wipe(i)
		:: else
		fi;
		i++
	:: else -> break
	od;
	i = 0
}

/* manifest/manifest.go, Open, in two parts, since the servers may lose records in between. First the last message is
 * read: latest. */
#ifdef END_UNNAMED /* what a record is appended after is the last record that counts */
#define before(x) rec[x].prev
#define beforegen(x) rec[x].prevgen
#else /* it is the last message, be it one that counts for nothing */
#define before(x) ((x) - 1)
#define beforegen(x) rec[x].endgen
#endif
#define snapOf(x) (rec[x].kind == CHECKPOINT -> (x) : rec[x].snap)

inline readLast(n) {
	claims++;
#if NODES > 2
	if
	:: n == used -> used++
	:: else
	fi;
#endif
	if
	:: claims == CLAIMS -> forget()
	:: else
	fi;
	node[n].known = last; node[n].endgen = rec[last].gen;
	node[n].epoch = rec[last].epoch; node[n].pfloor = rec[last].floor; node[n].snap = snapOf(last);
	if
	:: last > 0 -> node[n].past = before(last); node[n].pastgen = beforegen(last)
	:: else
	fi
}

/* Then the way back over what counts for nothing: walkBack. claim.go, openClaim and append: the claim has the next
 * epoch. */
inline walk(n) {
	if
	:: other(node[n].past, node[n].pastgen) ->
		i = node[n].past;
		do
		:: i > 1 && other(before(i), beforegen(i)) -> i = before(i)
		:: else -> break
		od;
		node[n].past = i; node[n].pastgen = rec[i].gen;
		node[n].epoch = rec[i].epoch; node[n].pfloor = rec[i].floor; node[n].snap = snapOf(i);
		i = 0
	:: else -> node[n].past = node[n].known; node[n].pastgen = node[n].endgen
	fi;
	/* If it is the last message still, what was found is the last record that scans find. */
	assert(node[n].known != last || node[n].endgen != rec[last].gen || node[n].past == top);
	node[n].does = CLAIMING; node[n].epoch++; node[n].kind = CLAIM; node[n].step = TRY
}

/* manifest/manifest.go, confirm: what the record was appended after is still there. */
#ifdef UNCONFIRMED
#define confirmed(n) true
#else
#ifdef END_UNNAMED
#define confirmed(n) same(node[n].past, node[n].pastgen)
#else
#define confirmed(n) same(node[n].known - 1, node[n].endgen)
#endif
#endif

/* manifest/manifest.go, follows: record x follows the one that n's scan has found last, or it is left out. */
#ifdef SCAN_UNNAMED
#define named(n, x) (!node[n].begun || rec[x].prevgen == node[n].atgen)
#else
#define named(n, x) (rec[x].prevgen == node[n].atgen)
#endif
#ifdef VOID_COUNTED
#define leftOut(n, x) false
#else
#ifdef END_UNNAMED
#define leftOut(n, x) (rec[x].prev < node[n].at || rec[x].prev == node[n].at && !named(n, x))
#else
#define leftOut(n, x) (rec[x].prev != node[n].at || !named(n, x) || \
	(x) - 1 > node[n].at && other((x) - 1, rec[x].endgen))
#endif
#endif
/* manifest/manifest.go, follows: records are missing before x, which is ErrGap. */
#ifdef END_UNNAMED
#define missing(n, x) (rec[x].prev > node[n].at)
#else
#define missing(n, x) (node[n].at + 1 < kept)
#endif

/* manifest/manifest.go, take: a scan ends with the claim itself, and not with another record at its place. */
#ifdef CLAIM_UNNAMED
#define wrongEnd(n, x) false
#else
#define wrongEnd(n, x) ((x) == node[n].known && rec[x].gen != node[n].pastgen)
#endif

/* n's claim is the last record, and counts: nobody is ahead of n. */
#define unrivalled(n) (node[n].past == last && node[n].pastgen == rec[last].gen && !vain(last))
/* n's disk is as of a record that counts. */
#define based(n) (node[n].at == 0 || same(node[n].at, node[n].atgen) && !vain(node[n].at) || \
	node[n].snap >= kept && node[n].at == rec[node[n].snap].from && node[n].atgen == rec[node[n].snap].fromgen)

/* claim.go, recover, after ErrGap: the scan does not lead to the claim, and the node steps down. Its disk may come from
 * records that count for nothing. */
inline gap(n) {
	assert(!unrivalled(n) || !based(n)); /* else no claim would ever succeed */
#ifndef GAP_TRUSTED
	wipe(n);
#endif
	assert(!unrivalled(n) || node[n].at == 0); /* else none of this node would */
	stop(n)
}
#endif

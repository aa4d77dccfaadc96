/*
 * The manifest as JetStream has it: store/manifest, and the server behind it. A record is stored (try), is gone (purged
 * or lost), or is read by whoever asks what is true.
 */

/* newest := the newest checkpoint at or below newest, 0 without one: manifest/checkpoint.go, Checkpoint, which need
 * not look for it, since each record names it. */
inline findCheckpoint() {
	do
	:: newest > 0 && (rec[newest].kind != CHECKPOINT || vain(newest)) -> newest--
	:: else -> break
	od
}

/* seen := the entries that whoever reads the manifest up to newest finds archived, as a new owner (claim.go, recover)
 * and a checkpoint (checkpointer.go, take) do. */
inline readTruth() {
	f = newest;
	findCheckpoint();
	i = 1;
	seen = 0;
	if
	:: newest > 0 -> seen = rec[newest].to; i = rec[newest].from + 1
	:: else
	fi;
	do
	:: i > f -> break
	:: else ->
		if
		:: rec[i].kind == COMMIT && !vain(i) -> seen = seen | RANGE(rec[i].from, rec[i].to)
		:: else
		fi;
		i++
	od;
	i = 0; f = 0; newest = 0
}

/* No loss: what has left the stream is archived, and the manifest as it can be read says what all its records ever
 * said. It is an invariant, and nothing of the program. */
inline check() {
#ifdef TREE
	readTree(last);
	newest = last;
	findCheckpoint();
	assert((HAS(live) | UPTO(gone)) == UPTO(high));
	assert(ASCENDING(live)); /* so a concatenation of the runs is in order, and has nothing twice */
	assert((LIVE(live) & ~inBucket) == 0); /* no object of a live segment is deleted */
	assert(newest == 0 || (imagesIn & BIT(rec[newest].to))); /* nor the newest checkpoint's */
#ifdef CUTS
	assert(gone == cuts);
	assert(!written || (HAS(live) & UPTO(gone)) == 0); /* nothing that is cut comes back */
#endif
	assert(first <= high + 1);
	assert(kept == 1 || last >= kept);
	newest = 0; live = 0; gone = 0
#else
	newest = last;
	readTruth();
	assert(seen == UPTO(high));
	assert(first <= high + 1);
	assert(top == 0 && kept == 1 || top >= kept); /* the last record stays */
	seen = 0
#endif
}

/* What counts for nothing changes nothing. It is what walkBack and follows in manifest/manifest.go find out, told at
 * once by who sees all. */
#ifdef SURVIVORS
#ifdef END_UNNAMED
#define counts(n) (node[n].past == top && node[n].pastgen == rec[top].gen)
#else
#define counts(n) (node[n].past == top && node[n].pastgen == rec[top].gen && node[n].endgen == rec[last].gen)
#endif
#else
#define counts(n) true
#endif

/* manifest/manifest.go, Append and try: the server has taken n's record, with the links that Append sets. */
inline store(n) {
	if
	:: counts(n) ->
		if
		:: node[n].kind == CLAIM -> assert(node[n].epoch == rec[top].epoch + 1) /* one owner for each epoch */
		:: else -> assert(node[n].epoch == rec[top].epoch) /* only the current epoch appends */
		fi;
		if
		:: node[n].kind == COMMIT ->
			assert(node[n].pfrom == high + 1); /* no entry twice, none left out, ascending */
			assert(node[n].pto >= node[n].pfrom && node[n].pto <= acked);
			high = node[n].pto
#ifdef CUTS
			; segment[node[n].psegment].clean = (cuts > 0)
		:: node[n].kind == CUT ->
			assert(node[n].pto >= high && node[n].pto <= acked);
			high = node[n].pto; cuts = node[n].pto
#endif
		:: else
		fi;
		/* The floor never falls, and all below is archived. */
		assert(node[n].pfloor >= rec[top].floor && node[n].pfloor <= high)
#ifdef SURVIVORS
		; top = last + 1
#endif
	:: else
	fi;
	last++;
	rec[last].kind = node[n].kind;
	rec[last].epoch = node[n].epoch;
	rec[last].by = n;
	rec[last].floor = node[n].pfloor;
	rec[last].from = node[n].pfrom;
	rec[last].to = node[n].pto;
	rec[last].gen = failures;
#ifdef TREE
	rec[last].segment = node[n].psegment;
	rec[last].inputs = node[n].pinputs;
#endif
#ifdef SURVIVORS
#ifdef ID_KEPT /* the record has its ID from its first try */
	if
	:: node[n].stored -> rec[last].gen = node[n].gen
	:: else -> node[n].stored = 1
	fi;
#endif
	node[n].gen = rec[last].gen;
	rec[last].prev = node[n].past;
	rec[last].prevgen = node[n].pastgen;
	rec[last].endgen = node[n].endgen;
	rec[last].snap = node[n].snap;
	rec[last].fromgen = node[n].fromgen;
	rec[last].vain = (top != last);
#endif
	check()
}

/* A record is no more: purged by manifest/checkpoint.go, Purge, or lost in a power failure. */
inline drop(x) {
	rec[x].kind = 0; rec[x].epoch = 0; rec[x].by = 0; rec[x].floor = 0;
	rec[x].from = 0; rec[x].to = 0; rec[x].gen = 0;
#ifdef TREE
	rec[x].segment = 0; rec[x].inputs = 0;
#endif
#ifdef SURVIVORS
	rec[x].prev = 0; rec[x].prevgen = 0; rec[x].endgen = 0; rec[x].snap = 0; rec[x].fromgen = 0; rec[x].vain = 0
#endif
}

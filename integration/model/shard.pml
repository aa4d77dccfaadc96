/*
 * The protocol of one shard with one log: source stream, manifest, two nodes that own the shard in turn, workers, a reader.
 * README.md says which Go function each step stands for, and what is left out. check.sh runs it.
 *
 * Switches: the sizes below; POWER (the manifest may lose what is not synced), READER (somebody reads the log), and one
 * name for each mutation, which must be caught.
 */

#ifndef ENTRIES
#define ENTRIES 3 /* published in all; at most 7 */
#endif
#ifndef CLAIMS
#define CLAIMS 3 /* epochs in all */
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 1 /* in all */
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef RECORDS
#define RECORDS 9 /* the manifest's bound; an append beyond it blocks */
#endif

#define NODES 2

/* Sets of entries are bit masks: bit s is the entry with sequence s. */
#define UPTO(s) ((2 << (s)) - 2)
#define RANGE(f, l) (UPTO(l) & ~UPTO((f) - 1))

/* The source stream: entries 1..acked were acked, first..acked are still there. */
byte acked;
byte first = 1;

/* The manifest: records 1..last, of which those below kept are purged. A record is named by its place and its generation,
 * which is the number of power failures before it: that stands for Record.ID. */
#define CLAIM 1
#define COMMIT 2
#define FLOOR 3
#define SNAPSHOT 4
typedef Record {
	byte kind;
	byte epoch;
	byte by;    /* node that appended it */
	byte floor;
	byte from;  /* of COMMIT: the extent's first; of SNAPSHOT: the last record that it has */
	byte to;    /* of COMMIT: the extent's last; of SNAPSHOT: the entries that its rows have, a mask */
	bit gen;
}
Record rec[RECORDS + 1]; /* [0] is empty and stands for what is before the first */
byte last;
byte kept = 1;
#ifdef POWER
byte synced; /* records up to here survive a power failure */
bit failures;
#else
#define synced last
#define failures 0
#endif

byte high; /* ghost: entries 1..high are archived according to all records ever, purged or not */
byte claims, snapshots;

/* Extents on their way: drained from some owner, put, and offered to any owner, any number of times, at any time. */
byte drained[WORKERS], until[WORKERS];

/* What a node does: nothing; append its claim; bring its disk up to it; serve. */
#define DOWN 0
#define CLAIMING 1
#define RECOVERING 2
#define SCANNING 3
#define SERVING 4
/* Where its append stands. */
#define NONE 0
#define TRY 1
#define LOOK 2
#define APPLY 3
typedef Node {
	byte does;
	byte epoch;
	byte known;   /* the last record that it knows: what an append expects */
	/* Its disk, in memory while it lives. */
	byte applied; /* source sequence */
	byte at;      /* manifest record */
	bit atgen;    /* that record's generation */
	byte floor;
	byte catalog; /* entries, a mask */
	byte buffer;  /* entries, a mask */
	/* Its append. */
	byte step;
	bit flying;   /* a copy of it may arrive at any time, even when the node has given up */
	byte kind, pfrom, pto, pfloor;
}
Node node[NODES];

byte i, j, newest, seen, f, t; /* scratch, 0 between steps */

/* newest := the newest snapshot's record up to newest, 0 without one. */
inline findSnapshot() {
	do
	:: newest > 0 && rec[newest].kind != SNAPSHOT -> newest--
	:: else -> break
	od
}

/* seen := the archived entries as whoever reads the manifest from its beginning finds them. */
inline readTruth(x) {
	newest = x;
	findSnapshot();
	seen = 0; j = 1;
	if
	:: newest > 0 -> seen = rec[newest].to; j = rec[newest].from + 1
	:: else
	fi;
	do
	:: j > x -> break
	:: else ->
		if
		:: rec[j].kind == COMMIT -> seen = seen | RANGE(rec[j].from, rec[j].to)
		:: else
		fi;
		j++
	od
}

/* No loss: what left the stream is archived. The manifest as it can be read says what all records ever said. */
inline check() {
	readTruth(last);
	assert(seen == UPTO(high));
	assert(first <= high + 1);
	newest = 0; seen = 0; j = 0
}

/* The server appends n's record, if nobody has appended since n's last. */
#ifdef NO_CAS
#define fits(n) (last < RECORDS)
#else
#define fits(n) (last == node[n].known && last < RECORDS)
#endif
#define room (last < RECORDS)

inline store(n) {
	if
	:: node[n].kind == CLAIM -> assert(node[n].epoch == rec[last].epoch + 1) /* one owner for each epoch */
	:: else -> assert(node[n].epoch == rec[last].epoch) /* only the current epoch appends */
	fi;
	if
	:: node[n].kind == COMMIT ->
		assert(node[n].pfrom == high + 1); /* no entry twice, none left out, ascending */
		assert(node[n].pto <= acked);
		high = node[n].pto
	:: else
	fi;
	assert(node[n].pfloor >= rec[last].floor); /* the floor never falls */
	assert(node[n].pfloor <= high);            /* and all below it is archived */
	last++;
	rec[last].kind = node[n].kind;
	rec[last].epoch = node[n].epoch;
	rec[last].by = n;
	rec[last].floor = node[n].pfloor;
	rec[last].from = node[n].pfrom;
	rec[last].to = node[n].pto;
	rec[last].gen = failures;
	check()
}

inline clearAppend(n) {
	node[n].kind = 0; node[n].pfrom = 0; node[n].pto = 0; node[n].pfloor = 0
}

/* n serves no more. What flies goes on flying, so its content and what it expects are kept. */
inline stop(n) {
	node[n].does = DOWN; node[n].step = NONE;
	if
	:: !node[n].flying -> clearAppend(n); node[n].epoch = 0; node[n].known = 0
	:: else
	fi
}

inline wipe(n) {
	node[n].applied = 0; node[n].at = 0; node[n].atgen = 0; node[n].floor = 0; node[n].catalog = 0; node[n].buffer = 0
}

/* Record x is applied to n's disk, in one batch. */
inline applyRecord(n, x) {
	if
	:: rec[x].kind == COMMIT ->
		node[n].catalog = node[n].catalog | RANGE(rec[x].from, rec[x].to);
		node[n].buffer = node[n].buffer & ~RANGE(rec[x].from, rec[x].to)
	:: else
	fi;
	node[n].at = x; node[n].atgen = rec[x].gen; node[n].floor = rec[x].floor
}

/* The last batches of n's disk are undone: any number of records and of entries, since nothing is ever synced. */
inline undo(n) {
	do
	:: node[n].at > 0 && node[n].at >= kept && node[n].at <= last && rec[node[n].at].gen == node[n].atgen ->
		if
		:: rec[node[n].at].kind == COMMIT ->
			f = RANGE(rec[node[n].at].from, rec[node[n].at].to);
			node[n].catalog = node[n].catalog & ~f;
			node[n].buffer = node[n].buffer | (f & UPTO(node[n].applied))
		:: else
		fi;
		node[n].at--;
		if
		:: node[n].at >= kept || node[n].at == 0 -> node[n].atgen = rec[node[n].at].gen; node[n].floor = rec[node[n].at].floor
		:: else -> wipe(n) /* what was before is purged: as good as a new disk */
		fi
	:: node[n].applied > 0 -> node[n].buffer = node[n].buffer & ~RANGE(node[n].applied, node[n].applied); node[n].applied--
	:: break
	od;
	f = 0
}

inline crash(n) {
	if
	:: skip
	:: wipe(n)
	:: undo(n)
	fi;
	stop(n)
}

/* f := the first buffered entry, 0 without one. */
inline firstBuffered(n) {
	f = 1;
	do
	:: f <= ENTRIES && !(node[n].buffer & RANGE(f, f)) -> f++
	:: f > ENTRIES -> f = 0; break
	:: else -> break
	od
}

/* t := up to where all is archived, as n knows it. */
inline floorOf(n) {
	firstBuffered(n);
	t = node[n].applied;
	if
	:: f > 0 && f - 1 < t -> t = f - 1
	:: else
	fi;
	if
	:: t < node[n].floor -> t = node[n].floor
	:: else
	fi
}

inline begin(n, x) {
	floorOf(n);
	node[n].kind = x; node[n].pfloor = t; node[n].step = TRY;
	f = 0; t = 0
}

#define current(n) (node[n].epoch == rec[last].epoch)
#define unsure(n) (node[n].at > 0 && (node[n].at > last || node[n].at >= kept && rec[node[n].at].gen != node[n].atgen))

#ifdef POWER
#define REBUILD true
#else
#define REBUILD false
#endif

/* claim.go: trustedPosition, and loadSnapshot when records that are missing here may be gone. */
inline trust(n) {
	if
	:: unsure(n) -> wipe(n)
#ifndef GONE_TRUSTED
	:: !unsure(n) && node[n].at > 0 && node[n].at < kept && REBUILD -> wipe(n)
#endif
	:: else
	fi;
	newest = node[n].known;
	findSnapshot();
	if
	:: newest > 0 && node[n].at < rec[newest].from ->
		node[n].catalog = node[n].catalog | rec[newest].to;
		node[n].buffer = 0; node[n].applied = 0;
		node[n].at = rec[newest].from;
		/* The real position has no ID here, which is anyone's. */
		node[n].atgen = rec[newest].gen
	:: else
	fi;
	newest = 0
}
#ifdef POWER
#define REBUILD true
#else
#define REBUILD false
#endif

/* Which worker has which extent makes no difference: the order is made one. */
inline sortWorkers() {
#if WORKERS > 1
	if
	:: drained[0] * 8 + until[0] > drained[1] * 8 + until[1] ->
		f = drained[0]; drained[0] = drained[1]; drained[1] = f;
		f = until[0]; until[0] = until[1]; until[1] = f;
		f = 0
	:: else
	fi
#else
	skip
#endif
}

proctype owner(byte n) {
	byte w; /* scratch, 0 between steps */
	do
	/* Open and the claim's append. The slot of an append that still flies cannot be used. */
	:: atomic { node[n].does == DOWN && !node[n].flying && claims < CLAIMS && room ->
		claims++;
		node[n].does = CLAIMING; node[n].known = last; node[n].epoch = rec[last].epoch + 1;
		node[n].kind = CLAIM; node[n].pfloor = rec[last].floor; node[n].step = TRY
	   }

	/* One try of an append. Its answer comes, or is lost, or the request itself is late: then it flies. */
	:: atomic { node[n].step == TRY && fits(n) -> node[n].flying = 0; store(n); node[n].step = APPLY; node[n].known = last }
	:: atomic { node[n].step == TRY && fits(n) -> node[n].flying = 0; store(n); node[n].step = LOOK }
	:: atomic { node[n].step == TRY && !fits(n) && room -> node[n].step = LOOK }
	:: atomic { node[n].step == TRY && room -> node[n].flying = 1; node[n].step = LOOK }
	:: atomic { node[n].flying ->
		if
		:: fits(n) -> store(n)
		:: else
		fi;
		node[n].flying = 0;
		if
		:: node[n].does == DOWN -> stop(n)
		:: else
		fi
	   }

	/* Nothing is known of the try: is the last record this one, somebody else's, or the one before? */
	:: atomic { node[n].step == LOOK ->
		if
#ifdef RETRY_BLINDLY
		:: true -> node[n].known = last; node[n].step = TRY
#else
		:: last > node[n].known && rec[last].by == n -> node[n].known = last; node[n].step = APPLY; node[n].flying = 0
		:: last == node[n].known -> node[n].step = TRY
		:: last != node[n].known && !(last > node[n].known && rec[last].by == n) -> stop(n) /* fenced */
#endif
		fi
	   }

	:: atomic { node[n].step == APPLY ->
		if
		:: node[n].kind == CLAIM -> node[n].does = RECOVERING
		:: else -> applyRecord(n, node[n].known)
		fi;
		node[n].step = NONE; clearAppend(n)
	   }

	:: atomic { node[n].does == RECOVERING -> trust(n); node[n].does = SCANNING }

	/* The manifest's tail, record by record. */
	:: atomic { node[n].does == SCANNING && node[n].at < node[n].known ->
#ifdef NO_TAIL
		node[n].at = node[n].known; node[n].atgen = rec[last].gen; node[n].floor = rec[last].floor
#else
		i = node[n].at + 1;
		if
		:: i >= kept -> applyRecord(n, i)
#ifdef SCAN_UNCHECKED
		:: i < kept -> i = kept; applyRecord(n, i)
#else
		:: i < kept -> stop(n) /* purged by a later owner: this one is fenced */
#endif
		fi;
		i = 0
#endif
	   }
	:: atomic { node[n].does == SCANNING && node[n].at >= node[n].known ->
		if
		:: node[n].applied < node[n].floor -> node[n].applied = node[n].floor
		:: else
		fi;
		node[n].does = SERVING;
		/* The current owner's catalog is the truth, and its buffer is what of it is taken in and not archived. */
		assert(!current(n) || node[n].catalog == UPTO(high));
		assert(!current(n) || node[n].buffer == (UPTO(node[n].applied) & ~UPTO(high)))
	   }

	/* consume.go, intake.go: the next entry, or a gap. */
	:: atomic { node[n].does == SERVING && node[n].applied < acked ->
		if
		:: node[n].applied + 1 < first ->
			assert(!current(n)); /* a current owner never takes a trim for a loss */
			node[n].applied = first - 1
		:: else ->
			node[n].applied++;
			f = RANGE(node[n].applied, node[n].applied);
			if
#ifndef SKIP_NOTHING
			:: (node[n].catalog & f) -> skip
#endif
			:: else ->
				assert(node[n].catalog < f || !current(n)); /* nothing is taken for another entry of an archived sequence */
				node[n].buffer = node[n].buffer | f
			fi;
			f = 0
		fi
	   }

	/* drain.go: a worker takes a run of what is buffered, perhaps not from its beginning, and puts it. */
	:: atomic { node[n].does == SERVING && node[n].buffer != 0 ->
		firstBuffered(n);
		do
		:: (node[n].buffer & RANGE(f + 1, f + 1)) -> f++
		:: break
		od;
		t = f;
		do
		:: (node[n].buffer & RANGE(t + 1, t + 1)) -> t++
		:: break
		od;
		if
		:: w = 0
#if WORKERS > 1
		:: w = 1
#endif
		fi;
		drained[w] = f; until[w] = t;
		f = 0; t = 0; w = 0;
		sortWorkers()
	   }

	/* commit.go: an extent is judged, and the record is made. */
	:: atomic { node[n].does == SERVING && node[n].step == NONE && !node[n].flying && room && drained[0] + until[WORKERS - 1] > 0 ->
		if
		:: drained[0] > 0 -> w = 0
#if WORKERS > 1
		:: drained[1] > 0 -> w = 1
#endif
		fi;
		firstBuffered(n);
		if
#ifdef NO_FIRST_CHECK
		:: until[w] <= node[n].applied ->
#else
		:: f > 0 && drained[w] == f && (node[n].buffer & RANGE(f, until[w])) == RANGE(f, until[w]) ->
#endif
			node[n].pfrom = drained[w]; node[n].pto = until[w];
			begin(n, COMMIT)
		:: else -> f = 0 /* refused */
		fi;
		w = 0
	   }

	/* trim.go: the floor is recorded on its own, and trimmed to once its record is safe. */
	:: atomic { node[n].does == SERVING && node[n].step == NONE && !node[n].flying && room ->
		floorOf(n);
		if
		:: t > node[n].floor -> begin(n, FLOOR)
		:: else -> f = 0; t = 0
		fi
	   }
	:: atomic { node[n].does == SERVING ->
#ifdef TRIM_TO_APPLIED
		t = node[n].applied;
#else
#ifdef TRIM_UNSYNCED
		t = node[n].floor;
#else
		t = (node[n].at <= synced -> node[n].floor : rec[synced].floor);
#endif
#endif
		if
		:: t + 1 > first -> first = t + 1
		:: else
		fi;
		t = 0;
		check()
	   }

	/* snapshot.go: a snapshot of any length is taken from what can be read of the manifest. */
	:: atomic { node[n].does == SERVING && node[n].step == NONE && !node[n].flying && room && snapshots < SNAPSHOTS ->
		newest = node[n].at;
		findSnapshot();
		i = node[n].at;
		do
		:: i > 1 && i - 1 > rec[newest].from -> i--
		:: break
		od;
		if
		:: i > rec[newest].from ->
			snapshots++;
			node[n].pfrom = i;
#ifdef SNAPSHOT_STALE
			i--;
#endif
			readTruth(i);
			node[n].pto = seen;
			begin(n, SNAPSHOT)
		:: else
		fi;
		i = 0; j = 0; newest = 0; seen = 0
	   }
	:: atomic { node[n].does == SERVING && SNAPSHOTS > 0 ->
#ifdef PURGE_UNSYNCED
		newest = node[n].at;
		findSnapshot();
#else
		newest = (node[n].at <= synced -> node[n].at : synced);
		findSnapshot();
#endif
		if
#ifdef PURGE_TO_HEAD
		:: newest > kept -> i = newest
#else
		:: newest > 0 && rec[newest].from + 1 > kept -> i = rec[newest].from + 1
#endif
		:: else
		fi;
		do
		:: kept < i ->
			rec[kept].kind = 0; rec[kept].epoch = 0; rec[kept].by = 0; rec[kept].floor = 0;
			rec[kept].from = 0; rec[kept].to = 0; rec[kept].gen = 0;
			kept++
		:: else -> break
		od;
		i = 0; newest = 0;
		check()
	   }

	:: atomic { node[n].does != DOWN -> crash(n) }
	od
}

proctype publisher() {
end:	do
	:: acked < ENTRIES -> acked++
	od
}

init {
	atomic { run publisher(); run owner(0); run owner(1) }
}

/*
 * The protocol of one shard with one log: source stream, manifest, two nodes that own the shard in turn, workers, a reader.
 * README.md says which Go function each step stands for and what is left out. check.sh runs it.
 *
 * Switches: the sizes below; POWER (the manifest may once lose what is not synced, and all nodes crash), SURVIVORS (with
 * POWER: nodes may live through that), READER (somebody reads the log), and one name for each mutation. Each mutation must be
 * caught.
 */

#ifndef NODES
#define NODES 2
#endif

#ifndef ENTRIES
#define ENTRIES 3 /* published in all; at most 3, see BIT */
#endif
#ifndef CLAIMS
#define CLAIMS 2 /* epochs in all */
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 1 /* in all */
#endif
#ifndef WORKERS
#define WORKERS 0 /* 0: any run of entries may be offered at any time; 2: two workers, each with what it has drained */
#endif
#ifndef RECORDS
#define RECORDS 8 /* the manifest's bound; an append beyond it waits for ever */
#endif

/* Sets of entries are bit masks: bit s is the entry with sequence s. */
#define BIT(s) (1 << (s))
#define UPTO(s) ((2 << (s)) - 2)
#define RANGE(f, l) (UPTO(l) & ~UPTO((f) - 1))
#define LOWEST(m) ((m) & 2 -> 1 : ((m) & 4 -> 2 : 3))
#define HIGHEST(m) ((m) & 8 -> 3 : ((m) & 4 -> 2 : ((m) & 2 -> 1 : 0)))

/* The source stream: entries 1..acked were acked, first..acked are still there. */
#ifdef SURVIVORS /* to keep it smaller: what is taken in late need not be published late */
byte acked = ENTRIES;
#else
byte acked;
#endif
byte first = 1;

/* The manifest: records 1..last, of which those below kept are purged. A place in it and the number of power failures
 * before the record was made name a record: together they stand for Record.ID. */
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
	byte to;    /* of COMMIT: the extent's last; of SNAPSHOT: the entries of its rows, a mask */
	bit gen;
#ifdef SURVIVORS
	byte prev;  /* the last record that counts, as its author knows; its generation */
	bit prevgen;
	bit endgen; /* generation of the message directly before it, as its author knows: as a rule that is prev */
	byte snap;  /* the newest snapshot before it */
	bit fromgen; /* of SNAPSHOT: generation of from */
	bit vain;   /* ghost: it counts for nothing */
#endif
}
Record rec[RECORDS + 1]; /* [0] stays empty and stands for what is before the first */
byte last;
byte kept = 1;
byte high; /* ghost: entries 1..high are archived according to all records, purged or not */
byte claims, snapshots; /* so far */
#if NODES > 2
byte used; /* nodes that have claimed: they are alike, so the first to claim are the first ones */
#endif
#define ANYONES 2 /* the generation of a position without an ID */
#ifdef POWER
byte synced; /* records up to here survive a power failure */
bit failures;
#define REBUILD true
#else
#define synced last
#define failures 0
#define REBUILD false
#endif
#ifdef SURVIVORS
byte top; /* ghost: the last record that counts */
byte counted; /* ghost: the last one that counts and is synced */
#define vain(x) rec[x].vain
#else
#define top last
#define vain(x) false
#endif

#if WORKERS > 0
byte drained[WORKERS], until[WORKERS]; /* the run of entries that a worker has drained and put, 0 and 0 without one */
#endif

/* What a node does. */
#define DOWN 0
#define CLAIMING 1
#define RECOVERING 2
#define SCANNING 3
#define SERVING 4
#define OPENING 5
#define LOADING 6
/* Where its append stands. */
#define NONE 0
#define TRY 1
#define LOOK 2
#define APPLY 3
#define CONFIRM 4
typedef Node {
	byte does;
	byte epoch;
	byte known;   /* the last record that it knows: what an append expects */
#ifdef SURVIVORS
	bit endgen;   /* generation of what is before the record that it appends: of known, or of known - 1 when it is appended */
	byte past;    /* the last record that counts, as it knows: not known if what follows it counts for nothing */
	bit pastgen;
	byte snap;    /* the newest snapshot, as it knows */
	bit fromgen;  /* of a snapshot that it appends */
	bit gen;      /* of what it has appended */
#ifdef ID_KEPT
	bit stored;   /* it was appended once */
#endif
#ifdef SCAN_UNNAMED
	bit begun;    /* its scan has found a record */
#endif
#ifdef PURGE_UNLOOKED
	byte has;     /* what the newest snapshot has, as it knows */
#endif
#endif
	/* Its disk, as it sees it while it lives. */
	byte applied; /* source sequence */
	byte at;      /* manifest record */
	byte atgen;   /* that record's generation */
	byte floor;
	byte catalog; /* entries, a mask */
	byte buffer;  /* entries, a mask */
	/* Its append. */
	byte step;
	bit flying;   /* a copy of it may arrive at any time, even when the node has given up */
	byte kind, pfrom, pto, pfloor;
}
Node node[NODES];

byte i, newest, seen, f; /* scratch, 0 between steps */

/* manifest.go, Has: a record is there, or another one is. */
#ifdef SURVIVORS
#define same(x, g) ((x) == 0 || (x) >= kept && (x) <= last && rec[x].gen == (g))
#define other(x, g) ((x) > 0 && (x) >= kept && (x) <= last && rec[x].gen != (g))
#define there(n) same(node[n].at, node[n].atgen) /* append.go, stillThere */
#define current(n) (rec[top].by == n && node[n].epoch == rec[top].epoch && \
	same(node[n].past, node[n].pastgen) && !vain(node[n].past))
#else
#define there(n) true
#define current(n) (node[n].epoch == rec[last].epoch)
#endif
#ifdef LOCAL_UNCHECKED /* what is wrong on one disk only does not count: the mutations show that it leads to worse */
#define owns(n, x) skip
#else
#define owns(n, x) assert(!current(n) || (x)) /* holds for a current owner */
#endif
#if NODES > 2
#define mayClaim(n) (claims < CLAIMS && last < RECORDS && n <= used)
#else
#define mayClaim(n) (claims < CLAIMS && last < RECORDS && (claims > 0 || n == 0))
#endif
#ifdef SURVIVORS
#define ANSWERED CONFIRM
#else
#define ANSWERED APPLY
#endif
#define idle(n) (node[n].does == SERVING && node[n].step == NONE && !node[n].flying && last < RECORDS)

/* Up to where all is archived, as n knows it: ledger.go, floorLocked. */
#define archived(n) (node[n].buffer == 0 -> node[n].applied : LOWEST(node[n].buffer) - 1)
#define floorOf(n) (archived(n) > node[n].floor -> archived(n) : node[n].floor)

/* To where n may trim: the floor of a record that it knows and that no power failure can take any more. */
#ifdef TRIM_TO_APPLIED
#define trimTo(n) node[n].applied
#else
#ifdef TRIM_UNSYNCED
#define trimTo(n) node[n].floor
#else
#ifdef SURVIVORS
#ifdef SURVIVORS_TRIM /* the delay is over, for a record that is lost as well */
#define trimTo(n) (!there(n) -> node[n].floor : (node[n].at <= synced -> node[n].floor : rec[counted].floor))
#else
#define trimTo(n) (!there(n) -> 0 : (node[n].at <= synced -> node[n].floor : rec[counted].floor))
#endif
#else
#define trimTo(n) (node[n].at <= synced -> node[n].floor : rec[synced].floor)
#endif
#endif
#endif

/* Up to where n looks for a snapshot whose records it may purge. */
#ifdef PURGE_UNSYNCED
#define safe(n) node[n].at
#else
#define safe(n) (node[n].at <= synced -> node[n].at : synced)
#endif

/* The server takes a record if nobody has appended since its author's last. */
#ifdef NO_CAS
#define fits(n) (last < RECORDS)
#else
#define fits(n) (last == node[n].known && last < RECORDS)
#endif

/* newest := the newest snapshot at or below newest, 0 without one. */
inline findSnapshot() {
	do
	:: newest > 0 && (rec[newest].kind != SNAPSHOT || vain(newest)) -> newest--
	:: else -> break
	od
}

/* seen := the entries that whoever reads the manifest up to newest finds archived. */
inline readTruth() {
	f = newest;
	findSnapshot();
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

/* No loss: what has left the stream is archived, and the manifest as it can be read says what all its records ever said. */
inline check() {
	newest = last;
	readTruth();
	assert(seen == UPTO(high));
	assert(first <= high + 1);
	assert(top == 0 && kept == 1 || top >= kept); /* the last record stays */
	seen = 0
}

/* What counts for nothing changes nothing. */
#ifdef SURVIVORS
#ifdef END_UNNAMED
#define counts(n) (node[n].past == top && node[n].pastgen == rec[top].gen)
#else
#define counts(n) (node[n].past == top && node[n].pastgen == rec[top].gen && node[n].endgen == rec[last].gen)
#endif
#else
#define counts(n) true
#endif

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
		:: else
		fi;
		assert(node[n].pfloor >= rec[top].floor && node[n].pfloor <= high) /* it never falls, and all below is archived */
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

/* A record is no more, having been purged or lost. */
inline drop(x) {
	rec[x].kind = 0; rec[x].epoch = 0; rec[x].by = 0; rec[x].floor = 0;
	rec[x].from = 0; rec[x].to = 0; rec[x].gen = 0;
#ifdef SURVIVORS
	rec[x].prev = 0; rec[x].prevgen = 0; rec[x].endgen = 0; rec[x].snap = 0; rec[x].fromgen = 0; rec[x].vain = 0
#endif
}

inline clearAppend(n) {
	node[n].step = NONE; node[n].kind = 0; node[n].pfrom = 0; node[n].pto = 0; node[n].pfloor = 0
#ifdef SURVIVORS
	; node[n].fromgen = 0; node[n].gen = 0
#ifdef ID_KEPT
	; node[n].stored = 0
#endif
#endif
}

inline wipe(n) {
	node[n].applied = 0; node[n].at = 0; node[n].atgen = 0; node[n].floor = 0; node[n].catalog = 0; node[n].buffer = 0
}

/* n serves no more. What flies goes on flying, so its content and what it expects are kept. */
inline stop(n) {
	node[n].does = DOWN; node[n].step = NONE;
	if
	:: !node[n].flying -> clearAppend(n); node[n].epoch = 0; node[n].known = 0
	:: else
	fi
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

/* The same for a record that n has appended, which it need not read: it may be purged by now. */
inline applyOwn(n) {
	if
	:: node[n].kind == COMMIT ->
		node[n].catalog = node[n].catalog | RANGE(node[n].pfrom, node[n].pto);
		node[n].buffer = node[n].buffer & ~RANGE(node[n].pfrom, node[n].pto)
	:: else
	fi;
	node[n].at = node[n].known; node[n].floor = node[n].pfloor;
#ifdef SURVIVORS
	node[n].atgen = node[n].gen;
	if
	:: node[n].kind == SNAPSHOT ->
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

#ifdef SURVIVORS
#define undoable(n) (node[n].at > kept && same(node[n].at, node[n].atgen) && !vain(node[n].at) && rec[node[n].at].prev >= kept)
#else
#define undoable(n) (node[n].at > kept && node[n].at <= last && rec[node[n].at].gen == node[n].atgen)
#endif

/* The last record's batch is lost from n's disk. */
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

inline undoEntry(n) {
	node[n].buffer = node[n].buffer & ~BIT(node[n].applied);
	node[n].applied--
}

inline begin(n, x, y, z) {
	node[n].kind = x; node[n].pfrom = y; node[n].pto = z; node[n].pfloor = floorOf(n); node[n].step = TRY
}

/* claim.go, trustedPosition; snapshot.go, loadSnapshot. */
#define replaced(n) (node[n].at > last || node[n].at >= kept && node[n].at > 0 && node[n].atgen != ANYONES && rec[node[n].at].gen != node[n].atgen)
#ifdef GONE_TRUSTED
#define untrusted(n) replaced(n)
#else
#define untrusted(n) (replaced(n) || REBUILD && node[n].at > 0 && node[n].at < kept)
#endif

inline trust(n) {
	if
	:: untrusted(n) -> wipe(n)
	:: else
	fi;
	newest = node[n].known;
	findSnapshot();
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
/* Nobody will claim again, so that the disks of nodes which are down make no difference. */
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

/* manifest.go, Open, in two parts, since the servers may lose records in between. First the last message is read. */
#ifdef END_UNNAMED /* what a record is appended after is the last record that counts */
#define before(x) rec[x].prev
#define beforegen(x) rec[x].prevgen
#else /* it is the last message, be it one that counts for nothing */
#define before(x) ((x) - 1)
#define beforegen(x) rec[x].endgen
#endif
#define snapOf(x) (rec[x].kind == SNAPSHOT -> (x) : rec[x].snap)

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

/* Then the way back over what counts for nothing. */
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

/* manifest.go, confirm: what the record was appended after is still there. */
#ifdef UNCONFIRMED
#define confirmed(n) true
#else
#ifdef END_UNNAMED
#define confirmed(n) same(node[n].past, node[n].pastgen)
#else
#define confirmed(n) same(node[n].known - 1, node[n].endgen)
#endif
#endif

/* manifest.go, chain: record x follows the one that n's scan has found last, or it is left out. */
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
/* Records are missing before x. */
#ifdef END_UNNAMED
#define missing(n, x) (rec[x].prev > node[n].at)
#else
#define missing(n, x) (node[n].at + 1 < kept)
#endif

/* A scan ends with the claim itself, and not with another record at its place. */
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

/* A scan does not lead to the claim: the node steps down. Its disk may come from records that count for nothing. */
inline gap(n) {
	assert(!unrivalled(n) || !based(n)); /* else no claim would ever succeed */
#ifndef GAP_TRUSTED
	wipe(n);
#endif
	assert(!unrivalled(n) || node[n].at == 0); /* else none of this node would */
	stop(n)
}
#endif

proctype owner(byte n) {
	do
	/* claim.go: Open, and the claim's append. Node 0 is the first, since the two are alike. An append that still flies has
	 * the only slot that there is for one, so the node waits for it. */
#ifdef SURVIVORS
	:: d_step { node[n].does == DOWN && mayClaim(n) -> readLast(n); walk(n) }
	:: d_step { node[n].does == DOWN && mayClaim(n) && last > 0 && failures == 0 -> readLast(n); node[n].does = OPENING }
	:: d_step { node[n].does == OPENING && failures > 0 -> walk(n) }
#else
	:: d_step { node[n].does == DOWN && !node[n].flying && mayClaim(n) ->
		claims++;
		node[n].does = CLAIMING; node[n].known = last; node[n].epoch = rec[last].epoch + 1;
		node[n].kind = CLAIM; node[n].pfloor = rec[last].floor; node[n].step = TRY
	   }
#endif

	/* manifest.go, try: it is answered; its answer is lost; it is refused; it is late, and flies. */
	:: d_step { node[n].step == TRY && fits(n) -> node[n].flying = 0; store(n); node[n].step = ANSWERED; node[n].known = last }
	:: d_step { node[n].step == TRY && fits(n) -> node[n].flying = 0; store(n); node[n].step = LOOK }
#ifdef SURVIVORS /* to keep it smaller: it looks at once */
	:: d_step { node[n].step == TRY && last != node[n].known -> stop(n) }
#else
	:: d_step { node[n].step == TRY && !fits(n) && last < RECORDS -> node[n].step = LOOK }
#endif
#if !defined(POWER) && !defined(READER) /* to keep those smaller: late appends have nothing to do with what they are for */
	:: d_step { node[n].step == TRY && !node[n].flying && last < RECORDS -> node[n].flying = 1; node[n].step = LOOK }
	:: d_step { node[n].flying ->
		if
		:: fits(n) -> store(n)
		:: else
		fi;
		node[n].flying = 0;
		if
		:: node[n].does == DOWN || node[n].step == NONE || node[n].step == APPLY ->
			if
			:: node[n].does == DOWN -> stop(n)
			:: else
			fi
		:: else
		fi
	   }

#endif

	/* Nothing is known of the try: is the last record this one, the one before, or somebody else's? */
	:: d_step { node[n].step == LOOK ->
#ifdef RETRY_BLINDLY
		node[n].known = last; node[n].step = TRY
#else
		if
		:: last > node[n].known && rec[last].by == n -> node[n].known = last; node[n].step = ANSWERED; node[n].flying = 0
		:: last == node[n].known -> node[n].step = TRY
		:: else -> stop(n) /* fenced */
		fi
#endif
	   }
#ifdef SURVIVORS
	:: d_step { node[n].step == CONFIRM ->
		if
		:: confirmed(n) ->
			node[n].past = node[n].known; node[n].pastgen = node[n].gen; node[n].endgen = node[n].gen;
			if
			:: node[n].kind == CLAIM -> node[n].does = RECOVERING
			:: else -> applyOwn(n)
			fi;
			clearAppend(n)
		:: else -> stop(n) /* fenced */
		fi
	   }

	/* claim.go, recover; trustedPosition. */
	:: d_step { node[n].does == RECOVERING ->
		if
		:: node[n].at > node[n].known || !there(n) -> wipe(n)
		:: else
		fi;
		node[n].does = (node[n].snap > 0 -> LOADING : SCANNING)
	   }
	/* snapshot.go, loadSnapshot; manifest/snapshot.go, snapshotOf, which knows a place only. */
	:: d_step { node[n].does == LOADING ->
		i = node[n].snap;
		if
		:: i > 0 && (i < kept || i > last || rec[i].kind != SNAPSHOT) -> stop(n)
		:: else ->
			if
			:: i > 0 && node[n].at < rec[i].from ->
				wipe(n);
				node[n].catalog = rec[i].to; node[n].at = rec[i].from; node[n].atgen = rec[i].fromgen
			:: else
			fi;
#ifdef PURGE_UNLOOKED
			node[n].has = rec[i].from;
#endif
			node[n].does = SCANNING
		fi;
		i = 0
	   }
	/* manifest.go, Scan, to the next record that is not left out. A scan that has come to the end before it has come to the
	 * place of the claim waits. */
	:: d_step { node[n].does == SCANNING && node[n].at < node[n].known ->
		i = (node[n].at + 1 < kept -> kept : node[n].at + 1);
		do
		:: i <= last && i <= node[n].known && !missing(n, i) && leftOut(n, i) -> i++
		:: else -> break
		od;
		if
		:: i > node[n].known -> gap(n)
		:: i <= node[n].known && i > last
		:: i <= node[n].known && i <= last && (missing(n, i) || wrongEnd(n, i)) -> gap(n)
		:: else ->
			applyRecord(n, i)
#ifdef SCAN_UNNAMED
			; node[n].begun = 1
#endif
		fi;
		i = 0
	   }
#else
	:: d_step { node[n].step == APPLY ->
		if
		:: node[n].kind == CLAIM -> node[n].does = RECOVERING
		:: else -> applyOwn(n)
		fi;
		clearAppend(n)
	   }

	/* claim.go, recover. */
	:: d_step { node[n].does == RECOVERING -> trust(n); node[n].does = SCANNING }
#if SNAPSHOTS > 0 && (!defined(POWER) || defined(LOAD_PARTS))
	/* A crash between a snapshot's rows and the position. */
	:: d_step { node[n].does == RECOVERING && snapshots > 0 && !untrusted(n) ->
		newest = node[n].known;
		findSnapshot();
		if
		:: newest > 0 && node[n].at < rec[newest].from -> node[n].catalog = node[n].catalog | rec[newest].to; stop(n)
		:: else
		fi;
		newest = 0
	   }
#endif
	:: d_step { node[n].does == SCANNING && node[n].at < node[n].known ->
#ifdef NO_TAIL
		node[n].at = node[n].known; node[n].atgen = rec[node[n].known].gen; node[n].floor = rec[node[n].known].floor
#else
		i = node[n].at + 1;
		if
		:: i >= kept -> applyRecord(n, i)
#ifdef SCAN_UNCHECKED
		:: else -> applyRecord(n, kept)
#else
		:: else -> stop(n) /* purged by a later owner: this one is fenced */
#endif
		fi;
		i = 0
#endif
	   }
#endif
	:: d_step { node[n].does == SCANNING && node[n].at >= node[n].known ->
		if
		:: node[n].applied < node[n].floor -> node[n].applied = node[n].floor
		:: else
		fi;
		node[n].does = SERVING;
		/* The catalog is the truth, and the buffer is all of the rest that was taken in. */
		owns(n, node[n].catalog == UPTO(high));
		owns(n, node[n].buffer == (UPTO(node[n].applied) & ~UPTO(high)))
	   }

	/* intake.go, batch.go: the next entry, or a gap. */
	:: d_step { node[n].does == SERVING && node[n].applied < acked ->
		if
		:: node[n].applied + 1 < first ->
			owns(n, false); /* a current owner never takes a trim for a loss */
			node[n].applied = first - 1
		:: else ->
			node[n].applied++;
			if
#ifndef SKIP_NOTHING
			:: node[n].catalog & BIT(node[n].applied) -> skip
#endif
			:: else ->
				owns(n, HIGHEST(node[n].catalog) < node[n].applied); /* an archived log has no holes */
				node[n].buffer = node[n].buffer | BIT(node[n].applied)
			fi
		fi
	   }

#if WORKERS > 0
	/* drain.go: a worker takes a run of what is buffered, perhaps not from its beginning, puts it and offers it to any owner
	 * as often as it likes. A drain replaces what the worker had. */
	:: atomic { node[n].does == SERVING && node[n].buffer != 0 ->
		f = LOWEST(node[n].buffer);
		do
		:: node[n].buffer & BIT(f + 1) -> f++
		:: break
		od;
		i = f;
		do
		:: node[n].buffer & BIT(i + 1) -> i++
		:: break
		od;
		if
		:: drained[0] = f; until[0] = i
		:: drained[1] = f; until[1] = i
		fi;
		if /* which worker has which extent makes no difference */
		:: drained[0] * 4 + until[0] > drained[1] * 4 + until[1] ->
			f = drained[0]; drained[0] = drained[1]; drained[1] = f;
			f = until[0]; until[0] = until[1]; until[1] = f
		:: else
		fi;
		i = 0; f = 0
	   }
#define offered(f, l) (drained[0] == f && until[0] == l || drained[1] == f && until[1] == l)
#else
#define offered(f, l) true
#endif

	/* judge.go, committer.go: an extent is judged, and the record is made. What is refused changes nothing. */
#ifdef NO_FIRST_CHECK
#define accepts(n, f, l) (l <= node[n].applied)
#else
#define accepts(n, f, l) (f == LOWEST(node[n].buffer) && (node[n].buffer & RANGE(f, l)) == RANGE(f, l))
#endif
	:: d_step { idle(n) && offered(1, 1) && accepts(n, 1, 1) -> begin(n, COMMIT, 1, 1) }
	:: d_step { idle(n) && offered(1, 2) && accepts(n, 1, 2) -> begin(n, COMMIT, 1, 2) }
	:: d_step { idle(n) && offered(2, 2) && accepts(n, 2, 2) -> begin(n, COMMIT, 2, 2) }
#if ENTRIES > 2
	:: d_step { idle(n) && offered(1, 3) && accepts(n, 1, 3) -> begin(n, COMMIT, 1, 3) }
	:: d_step { idle(n) && offered(2, 3) && accepts(n, 2, 3) -> begin(n, COMMIT, 2, 3) }
	:: d_step { idle(n) && offered(3, 3) && accepts(n, 3, 3) -> begin(n, COMMIT, 3, 3) }
#endif

	/* trim.go: the floor is recorded on its own, and trimmed to once its record is safe. */
	:: d_step { idle(n) && floorOf(n) > node[n].floor -> begin(n, FLOOR, 0, 0) }
	:: d_step { node[n].does == SERVING && trimTo(n) + 1 > first -> first = trimTo(n) + 1; check() }

	/* snapshot.go: a snapshot of all that its owner has applied, or of all but the last record, is read from the manifest;
	 * later, the records that it has are purged. */
#ifdef PURGE_UNLOOKED
#define looked(n) true
#else
#define looked(n) there(n)
#endif
#if SNAPSHOTS > 0
	:: atomic { idle(n) && snapshots < SNAPSHOTS && there(n) ->
		newest = node[n].at;
		findSnapshot();
		i = newest;
		newest = node[n].at;
		if
		:: skip
#ifdef SURVIVORS
		:: newest = rec[newest].prev
#else
		:: newest--
#endif
		fi;
		if
		:: newest > rec[i].from ->
			snapshots++;
			i = newest;
#ifdef SNAPSHOT_STALE
			newest--;
#endif
			d_step {
				node[n].pfrom = i;
#ifdef SURVIVORS
				node[n].fromgen = rec[i].gen;
#endif
				readTruth();
				begin(n, SNAPSHOT, node[n].pfrom, seen);
				seen = 0
			}
		:: else -> i = 0; newest = 0
		fi
	   }
	:: d_step { node[n].does == SERVING && snapshots > 0 && looked(n) ->
		newest = safe(n);
		findSnapshot();
		i = 0;
		if
#ifdef PURGE_UNLOOKED
		:: !there(n) && node[n].has > 0 -> i = node[n].has + 1
#endif
#ifdef PURGE_TO_HEAD
		:: newest > 0 -> i = newest
#else
		:: newest > 0 -> i = rec[newest].from + 1
#endif
		:: else
		fi;
		do
		:: kept < i -> drop(kept); kept++
		:: else -> break
		od;
		i = 0; newest = 0;
		check()
	   }
#endif

	/* A crash, or the node steps down. Its disk is never synced: it comes back whole, empty, or without its last batches. */
	:: d_step { node[n].does != DOWN -> stop(n) }
#ifndef DISKS_LAST /* else a smaller search for a mutation */
	:: d_step { node[n].does != DOWN && (node[n].at > 0 || node[n].applied > 0) -> wipe(n); stop(n) }
	:: atomic { node[n].does != DOWN && (undoable(n) || node[n].applied > 0) ->
		do
		:: d_step { undoable(n) -> undoRecord(n) }
		:: break
		od;
		do
		:: d_step { node[n].applied > 0 -> undoEntry(n) }
		:: break
		od;
		d_step { stop(n) }
	   }
#endif
	od
}

#ifdef POWER
/* The machine of the servers loses power, once: the manifest loses records that were not synced. The nodes lose power too, or
 * live. Disks may be ahead of the manifest. */
proctype power() {
	do
	:: d_step { failures == 0 && synced < last ->
		synced = last
#ifdef SURVIVORS
		; counted = top
#endif
	   }
	:: atomic { failures == 0 && synced < last ->
		failures = 1;
#ifdef SURVIVORS
		do
		:: i < NODES ->
			if
			:: node[i].does != DOWN -> d_step { stop(i) }
			:: skip
			fi;
			i++
		:: else -> break
		od;
		i = 0;
#else
		d_step { node[0].flying = 0; node[1].flying = 0; stop(0); stop(1) };
#endif
		do
		:: d_step { last > synced ->
			if
			:: rec[last].kind == COMMIT && !vain(last) -> high = rec[last].from - 1
			:: else
			fi;
			drop(last);
			last--
		   }
		:: break
		od;
		d_step {
			synced = RECORDS; /* nothing is lost any more */
#ifdef SURVIVORS
			counted = 0;
			top = last;
			do
			:: vain(top) -> top--
			:: else -> break
			od;
#endif
			check()
		}
	   }
	od
}
#endif

#ifdef READER
/* reader.go: the archive, then the stream, and a look at the stream's beginning after each batch from it. Any owner
 * answers, also a stale one. */
byte position, wanted, upto, head, begins;
#define ARCHIVE 0
#define TAIL 1
#define BOUNDS 2
#define FRESH 3
#define EMIT 4
byte reads;

inline readArchive(n) {
	assert((node[n].catalog & UPTO(HIGHEST(node[n].catalog)) & ~UPTO(position)) ==
		(UPTO(HIGHEST(node[n].catalog)) & ~UPTO(position))); /* nothing is left out */
	if
	:: HIGHEST(node[n].catalog) > position -> position = HIGHEST(node[n].catalog)
	:: else
	fi;
	reads = TAIL
}

proctype reader() {
	d_step { acked > 0 -> wanted = acked };
	do
	:: d_step { reads == ARCHIVE && node[0].does == SERVING -> readArchive(0) }
	:: d_step { reads == ARCHIVE && node[1].does == SERVING -> readArchive(1) }
	:: atomic { reads == TAIL && position >= wanted -> position = 0; begins = 0; upto = 0; head = 0; break }
	:: d_step { reads == TAIL && position < wanted ->
		begins = (first > position + 1 -> first : position + 1);
		upto = acked;
#ifdef READ_NO_BOUNDS
		reads = EMIT
#else
		reads = BOUNDS
#endif
	   }
	:: d_step { reads == BOUNDS && first <= position + 1 -> reads = EMIT }
	:: d_step { reads == BOUNDS && first > position + 1 -> head = last; reads = FRESH }
#ifdef READ_STALE
#define knows(n) true
#else
#define knows(n) (node[n].at >= head)
#endif
	:: d_step { reads == FRESH && node[0].does == SERVING && knows(0) ->
		reads = (HIGHEST(node[0].catalog) > position -> ARCHIVE : EMIT)
	   }
	:: d_step { reads == FRESH && node[1].does == SERVING && knows(1) ->
		reads = (HIGHEST(node[1].catalog) > position -> ARCHIVE : EMIT)
	   }
	:: d_step { reads == EMIT ->
		assert(begins == position + 1); /* nothing is left out */
		position = upto; begins = 0; upto = 0; head = 0;
		reads = TAIL
	   }
	od
}
#endif

proctype publisher() {
	do
	:: acked < ENTRIES -> acked++
	od
}

init {
	atomic {
		run owner(0); run owner(1); run publisher();
#if NODES > 2
		run owner(2);
#endif
#ifdef POWER
		run power();
#endif
#ifdef READER
		run reader();
#endif
		skip
	}
}

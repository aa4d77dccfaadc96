/* An owner of the shard: ingest/shard. Nothing keeps two of them from serving at once. */

proctype owner(byte n) {
	do
	/* claim.go, openClaim, with Open of manifest/manifest.go; claim.go, append. Node 0 is the first, since the two are
	 * alike. An append that still flies has the only slot that there is for one, so the node waits for it. With
	 * SURVIVORS, Open may be one step, or two with a power failure in between: latest, walkBack. */
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

	/* manifest/manifest.go, try: the append is answered; its answer is lost; it is refused; it is late, and flies. */
	:: d_step { node[n].step == TRY && fits(n) ->
		node[n].flying = 0; store(n); node[n].step = ANSWERED; node[n].known = last
	   }
#ifndef TREE /* to keep it smaller: no answer is lost */
	:: d_step { node[n].step == TRY && fits(n) -> node[n].flying = 0; store(n); node[n].step = LOOK }
#endif
#if defined(SURVIVORS) || defined(TREE) /* to keep it smaller: it looks at once */
	:: d_step { node[n].step == TRY && last != node[n].known -> stop(n) }
#else
	:: d_step { node[n].step == TRY && !fits(n) && last < RECORDS -> node[n].step = LOOK }
#endif
#if !defined(POWER) && !defined(READER) && !defined(TREE) /* to keep those smaller: they are not for late appends */
	:: d_step { node[n].step == TRY && !node[n].flying && last < RECORDS -> node[n].flying = 1; node[n].step = LOOK }
	/* What is late arrives, after try has given it up at its time-out, or after its author has stepped down. */
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

	/* manifest/manifest.go, try, looks at latest: is the last record this one, the one before, or somebody else's?
	 * Append tries again or returns ErrFenced. */
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
	/* manifest/manifest.go, Append, calls confirm; then claim.go, begin, goes on, or append.go, append, applies the
	 * record: ledger.go, apply. */
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

	/* claim.go, recover, calls trustedPosition. */
	:: d_step { node[n].does == RECOVERING ->
		if
		:: node[n].at > node[n].known || !there(n) -> wipe(n)
		:: else
		fi;
		node[n].does = (node[n].snap > 0 -> LOADING : SCANNING)
	   }
	/* recovery.go, readTree and compare, of what manifest/checkpoint.go, Checkpoint, finds, which knows a place only. A
	 * power failure may have taken that. */
	:: d_step { node[n].does == LOADING ->
		i = node[n].snap;
		if
		:: i > 0 && (i < kept || i > last || rec[i].kind != CHECKPOINT) -> stop(n)
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
	/* manifest/manifest.go, Scan, with take and follows, to the next record that is not left out, and ledger.go, apply.
	 * A scan that has come to the end before it has come to the place of the claim waits: a consumer has no more. */
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
	/* claim.go, begin, goes on after the claim's append; append.go, append, applies any other: ledger.go, apply. */
	:: d_step { node[n].step == APPLY ->
		if
		:: node[n].kind == CLAIM -> node[n].does = RECOVERING
		:: else -> applyOwn(n)
		fi;
		clearAppend(n)
	   }

#ifdef TREE
	:: d_step { node[n].does == RECOVERING -> recover(n) }
#else
	/* claim.go, recover, up to its scan: trustedPosition, readTree, compare. */
	:: d_step { node[n].does == RECOVERING -> trust(n); node[n].does = SCANNING }
#if CHECKPOINTS > 0 && (!defined(POWER) || defined(LOAD_PARTS))
	/* recovery.go, readTree and compare: a crash between a checkpoint's rows (disk.go, archived) and the position
	 * (disk.go, store). */
	:: d_step { node[n].does == RECOVERING && checkpoints > 0 && !untrusted(n) ->
		newest = node[n].known;
		findCheckpoint();
		if
		:: newest > 0 && node[n].at < rec[newest].from -> node[n].catalog = node[n].catalog | rec[newest].to; stop(n)
		:: else
		fi;
		newest = 0
	   }
#endif
	/* manifest/manifest.go, Scan, calls ledger.go, apply, for the next record; follows returns ErrGap if it is not the
	 * next. */
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
#endif
#ifndef TREE
	/* claim.go, recover, after its scan: ledger.go, beginAbove and restore. Then the owner runs: owner.go, Run. */
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
#endif

	/* batch.go, take, sort and apply, then ledger.go, takeIn: the next entry, unless disk.go, whatIsArchived, finds it.
	 * intake.go, runOnce, then batch.go, stepOver, and ledger.go, stepOver: what the stream has dropped. */
	:: d_step { node[n].does == SERVING && node[n].applied < acked ->
		if
		:: node[n].applied + 1 < first ->
			owns(n, false); /* a current owner never takes a trim for a loss */
			node[n].applied = first - 1
		:: else ->
			node[n].applied++;
			if
#ifdef CUTS /* batch.go, sort: what is cut is stepped over */
			:: node[n].applied <= node[n].cut -> skip
#endif
#ifndef SKIP_NOTHING
			:: node[n].catalog & BIT(node[n].applied) -> skip
#endif
			:: else ->
				owns(n, HIGHEST(node[n].catalog) < node[n].applied); /* an archived log has no holes */
				node[n].buffer = node[n].buffer | BIT(node[n].applied)
			fi
		fi
	   }

#ifndef TREE
#include "worker.pml"
#endif

	/* workers/commit.go, commit, asks; judge.go, judge and isBuffered, look the extent over; committer.go, commit,
	 * makes the record. What is refused changes nothing. */
#ifdef NO_FIRST_CHECK
#define accepts(n, f, l) (l <= node[n].applied)
#else
#define accepts(n, f, l) (f == LOWEST(node[n].buffer) && (node[n].buffer & RANGE(f, l)) == RANGE(f, l))
#endif
#ifdef TREE
#include "merger.pml"
#include "cutter.pml"
#include "garbage.pml"
#else
	:: d_step { idle(n) && offered(1, 1) && accepts(n, 1, 1) -> begin(n, COMMIT, 1, 1) }
	:: d_step { idle(n) && offered(1, 2) && accepts(n, 1, 2) -> begin(n, COMMIT, 1, 2) }
	:: d_step { idle(n) && offered(2, 2) && accepts(n, 2, 2) -> begin(n, COMMIT, 2, 2) }
#if ENTRIES > 2
	:: d_step { idle(n) && offered(1, 3) && accepts(n, 1, 3) -> begin(n, COMMIT, 1, 3) }
	:: d_step { idle(n) && offered(2, 3) && accepts(n, 2, 3) -> begin(n, COMMIT, 2, 3) }
	:: d_step { idle(n) && offered(3, 3) && accepts(n, 3, 3) -> begin(n, COMMIT, 3, 3) }
#endif
#endif

	/* trim.go, look; committer.go, recordFloor and commit: the floor is recorded on its own. Then trim.go, trim: the
	 * stream is cut to it once its record is safe. */
	:: d_step { idle(n) && floorOf(n) > node[n].floor -> begin(n, FLOOR, 0, 0) }
	:: d_step { node[n].does == SERVING && trimTo(n) + 1 > first -> first = trimTo(n) + 1; check() }

#include "checkpointer.pml"

	/* The process ends at any point, or owner.go, Run, returns and ingest/shardrunner.go, turn, with it. The disk is
	 * never synced (disk.go, commit): it comes back whole, empty, or without its last batches. */
	:: d_step { node[n].does != DOWN -> stop(n) }
#if !defined(DISKS_LAST) && !defined(NO_WIPE) /* else a smaller search for a mutation */
	:: d_step { node[n].does != DOWN && (node[n].at > 0 || node[n].applied > 0) -> wipe(n); stop(n) }
#ifndef TREE
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
#endif
	od
}

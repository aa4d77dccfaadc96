/* The checkpointer of an owner: checkpointer.go, take and dropTail. owner.pml includes it among its steps. */

	/* append.go, stillThere, asked by dropTail. */
#ifdef PURGE_UNLOOKED
#define looked(n) true
#else
#define looked(n) there(n)
#endif
#if SNAPSHOTS > 0
	/* take, then committer.go, recordCheckpoint and commit: a snapshot of all that its owner has applied, or of all but
	 * the last record, is read from the manifest. What was applied meanwhile is not in it. */
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
	/* dropTail, then manifest/checkpoint.go, Purge: the records that a snapshot has are dropped, once its own is safe. */
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

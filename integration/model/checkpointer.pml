/* The checkpointer of an owner: checkpointer.go, take and dropTail. owner.pml includes it among its steps. */

	/* append.go, stillThere, asked by dropTail. */
#ifdef PURGE_UNLOOKED
#define looked(n) true
#else
#define looked(n) there(n)
#endif
#if CHECKPOINTS > 0
	/* take, then committer.go, recordCheckpoint and commit: a checkpoint of all that its owner has applied, or of all but
	 * the last record, is read from the manifest. What was applied meanwhile is not in it. */
#ifdef TREE
	/* take: (1) the object is put. */
	:: d_step { node[n].does == SERVING && checkpoints < CHECKPOINTS && node[n].pending == 0 &&
		node[n].at > (node[n].image > 0 -> image[node[n].image].upto : 0) ->
		checkpoints++;
		image[checkpoints].tree = node[n].tree; image[checkpoints].upto = node[n].at;
#ifndef CHECKPOINT_UNCUT
		image[checkpoints].cut = node[n].cut;
#endif
		imagesIn = imagesIn | BIT(checkpoints);
		node[n].pending = checkpoints
	   }
	/* take: (2) its record, unless the object was taken for garbage meanwhile: committer.go, judge. */
#ifdef CHECKPOINT_CONDEMNED
#define spared(n) true
#else
#define spared(n) !(node[n].condemnedImages & BIT(node[n].pending))
#endif
	:: d_step { idle(n) && node[n].pending > 0 ->
		if
		:: spared(n) -> begin(n, CHECKPOINT, image[node[n].pending].upto, node[n].pending)
		:: else
		fi;
		node[n].pending = 0
	   }
#else
	:: atomic { idle(n) && checkpoints < CHECKPOINTS && there(n) ->
		newest = node[n].at;
		findCheckpoint();
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
			checkpoints++;
			i = newest;
#ifdef CHECKPOINT_STALE
			newest--;
#endif
			d_step {
				node[n].pfrom = i;
#ifdef SURVIVORS
				node[n].fromgen = rec[i].gen;
#endif
				readTruth();
				begin(n, CHECKPOINT, node[n].pfrom, seen);
				seen = 0
			}
		:: else -> i = 0; newest = 0
		fi
	   }
#endif
	/* dropTail, then manifest/checkpoint.go, Purge: the records that a checkpoint has are dropped, once its own is
	 * safe. */
	:: d_step { node[n].does == SERVING && checkpoints > 0 && looked(n) ->
		newest = safe(n);
		findCheckpoint();
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

/* What deletes objects: garbage.go and sweeper.go. They are steps of the owner: owner.pml includes this among them. */

#if MERGES > 0
	/* garbage.go, run and delete: what merges have replaced, once that is safe from a power failure; append.go,
	 * stillThere. */
#ifdef WASTE_UNSYNCED
#define graceOver(n) true
#else
#define graceOver(n) (node[n].wasted <= synced)
#endif
	:: d_step { node[n].does == SERVING && node[n].waste != 0 && graceOver(n) && there(n) ->
		inBucket = inBucket & ~node[n].waste;
		node[n].waste = 0; node[n].wasted = 0;
		check()
	   }
#endif

#ifdef SWEEP
/* sweeper.go, list: segments of any age if something was cut, and else the old ones. */
#ifdef SWEEP_YOUNG
#define sweepable(n) inBucket
#else
#define sweepable(n) (node[n].cut > 0 -> inBucket : inBucket & UPTO(aged))
#endif
#define garbageOf(n) (sweepable(n) & ~LIVE(node[n].tree))
#define staleImages(n) (imagesIn & UPTO(imagesAged) & ~ONE(node[n].image))
	/* sweeper.go, sweep; committer.go, judge, between two records; ledger.go, condemn. */
	:: d_step { idle(n) && node[n].dead == 0 && node[n].deadImages == 0 && (garbageOf(n) != 0 || staleImages(n) != 0) ->
		node[n].dead = garbageOf(n); node[n].deadImages = staleImages(n);
		node[n].condemned = node[n].condemned | (node[n].dead & ~UPTO(aged));
		node[n].condemnedImages = node[n].condemnedImages | node[n].deadImages;
		node[n].asof = node[n].at
	   }
	/* sweeper.go, delete, when the delay is over: what made it garbage is safe from a power failure, and nobody else has
	 * claimed the shard, who may have committed what this owner does not know. */
#ifdef SWEEP_FENCED
#define mine(n) true
#else
#define mine(n) (rec[last].epoch == node[n].epoch)
#endif
#ifdef SWEEP_UNSYNCED
#define delayOver(n) true
#else
#define delayOver(n) (node[n].asof <= synced)
#endif
	:: d_step { node[n].does == SERVING && (node[n].dead != 0 || node[n].deadImages != 0) && delayOver(n) && mine(n) ->
		inBucket = inBucket & ~node[n].dead; imagesIn = imagesIn & ~node[n].deadImages;
		node[n].waste = node[n].waste & ~node[n].dead;
		node[n].dead = 0; node[n].deadImages = 0; node[n].asof = 0;
		check()
	   }
#endif

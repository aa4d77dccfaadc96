/* How an owner takes over, with TREE: claim.go, recover; recovery.go. Without TREE its steps are in owner.pml. */

#ifdef TREE
/* The newest checkpoint at or below newest has what the records before kept have had. */
#define reaches (newest > 0 -> rec[newest].from + 1 >= kept : kept == 1)

/* claim.go, recover: trustedPosition; recovery.go, readTree and compare, which also have what is archived and what
 * is cut leave the buffer; disk.go, archived and cutAll. It is one step, and ends in SERVING or not at all. */
inline recover(n) {
	if
	:: untrusted(n) -> wipe(n)
	:: else
	fi;
	newest = node[n].known;
	findCheckpoint();
	if
	:: !reaches || newest > 0 && !(imagesIn & BIT(rec[newest].to)) -> /* a later owner has purged, or deleted, it */
		newest = 0;
		assert(!current(n));
		stop(n)
	:: else ->
		node[n].image = (newest > 0 -> rec[newest].to : 0);
		readTree(node[n].known);
		if
		:: LIVE(live) & ~inBucket -> /* likewise: its tables of contents cannot be read */
			assert(!current(n));
			stop(n)
		:: else ->
			node[n].tree = live;
			node[n].catalog = HAS(live);
			node[n].buffer = node[n].buffer & ~UPTO(HIGHEST(node[n].catalog));
#ifndef CUT_FORGOTTEN /* else a new owner knows nothing of what is cut */
			node[n].cut = gone;
#endif
#ifndef CUT_BUFFERED /* else what is cut stays in the buffer, if a crash came before it left */
			node[n].buffer = node[n].buffer & ~UPTO(node[n].cut);
#endif
			node[n].at = node[n].known; node[n].atgen = rec[node[n].known].gen; node[n].floor = rec[node[n].known].floor;
			if
			:: node[n].applied < node[n].floor -> node[n].applied = node[n].floor
			:: else
			fi;
			node[n].does = SERVING;
			owns(n, (node[n].catalog | UPTO(node[n].cut)) == UPTO(high));
			owns(n, node[n].buffer == (UPTO(node[n].applied) & ~UPTO(high)))
		fi;
		live = 0; gone = 0
	fi
}
#endif

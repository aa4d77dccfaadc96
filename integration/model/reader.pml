/* A reader of the log: store/reader. */

#ifdef READER
/* store/reader/join.go, run: the archive, then the stream, and a look at the stream's beginning after each batch from
 * it. Any owner answers, also a stale one. In Go the owner has the buffer too and tells whether a batch is complete, so
 * that the reader looks at the stream's beginning only when no owner knows. */
byte position, wanted, upto, head, begins;
#define ARCHIVE 0
#define TAIL 1
#define BOUNDS 2
#define FRESH 3
#define EMIT 4
byte reads;

/* join.go, readHeld; reader.go, readExtent; answered by ingest/shard/held.go, answer, with the extents. */
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
	/* reader.go, Read: the end of the stream is the end of the read (tail.go, End). */
	d_step { acked > 0 -> wanted = acked };
	do
	/* join.go, readHeld. */
	:: d_step { reads == ARCHIVE && node[0].does == SERVING -> readArchive(0) }
	:: d_step { reads == ARCHIVE && node[1].does == SERVING -> readArchive(1) }
	/* join.go, done. */
	:: atomic { reads == TAIL && position >= wanted -> position = 0; begins = 0; upto = 0; head = 0; break }
	/* join.go, readTail; tail.go, Fetch: a batch, which begins above what the stream has dropped. */
	:: d_step { reads == TAIL && position < wanted ->
		begins = (first > position + 1 -> first : position + 1);
		upto = acked;
#ifdef READ_NO_BOUNDS
		reads = EMIT
#else
		reads = BOUNDS
#endif
	   }
	/* kept.go, Kept, asked by join.go, complete: has the stream dropped anything above what was emitted? */
	:: d_step { reads == BOUNDS && first <= position + 1 -> reads = EMIT }
	:: d_step { reads == BOUNDS && first > position + 1 -> head = last; reads = FRESH }
	/* join.go, complete; answered by ingest/shard/held.go, answer: an owner that knows enough has more in its archive,
	 * or has not. In the model it must know the manifest's last record (ingest/shard/query.go, extents, asks for that),
	 * in Go the batch's last entry. */
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
	/* join.go, emitAll. */
	:: d_step { reads == EMIT ->
		assert(begins == position + 1); /* nothing is left out */
		position = upto; begins = 0; upto = 0; head = 0;
		reads = TAIL
	   }
	od
}
#endif

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
#define PIECES 5
byte reads;

#ifdef CUTS
#define cutUpTo cuts
#else
#define cutUpTo 0
#endif
#ifdef TREE
short pieces; /* what an owner has named and was not read yet */
byte told;    /* up to where is cut, as the owner told */
byte since;   /* ghost: up to where was cut when the read began */

/* What is not there above the position up to x is cut. */
#define nothingLost(x, there) ((RANGE(position + 1, x) & ~(there) & ~UPTO(cutUpTo)) == 0)
/* What was read is not what had been deleted before; owner.go, Held: cuts are told with the segments, reader.go,
 * take. */
#ifdef READ_UNCUT
#define emitted(there) (there)
#else
#define emitted(there) ((there) & ~UPTO(told))
#endif

/* join.go, readHeld: an owner names segments, and says what is cut: held.go, answer; segments of which nothing is
 * wanted are left out by both. An owner that knows nothing of a cut is one whose lease is over, and does not answer
 * any more when that is answered to who asked for it (query.go, serveReaders; membership/lease.go, Fresh). */
#define answers(n) (node[n].does == SERVING && node[n].cut >= since)
inline readArchive(n) {
	pieces = node[n].tree; told = node[n].cut;
	reads = PIECES
}

/* pieces.go, readPieces and readPiece: the next segment. One that is gone was replaced: the owner is asked again. */
inline readPiece() {
	i = RUN(pieces, 0);
	pieces = pieces >> 3;
	if
	:: HIGHEST(segment[i].has) <= position
	:: HIGHEST(segment[i].has) > position && (inBucket & BIT(i)) ->
		assert(nothingLost(HIGHEST(segment[i].has), segment[i].has));
		assert((emitted(segment[i].has & ~UPTO(position)) & UPTO(since)) == 0);
		position = HIGHEST(segment[i].has)
#ifdef READ_GONE /* what is gone is taken for nothing */
	:: HIGHEST(segment[i].has) > position && !(inBucket & BIT(i))
#else
	:: HIGHEST(segment[i].has) > position && !(inBucket & BIT(i)) -> pieces = 0; reads = ARCHIVE
#endif
	fi;
	i = 0
}
#else
/* join.go, readHeld; reader.go, readExtent; answered by ingest/shard/held.go, answer, with the extents. */
#define answers(n) (node[n].does == SERVING)
inline readArchive(n) {
	assert((node[n].catalog & UPTO(HIGHEST(node[n].catalog)) & ~UPTO(position)) ==
		(UPTO(HIGHEST(node[n].catalog)) & ~UPTO(position))); /* nothing is left out */
	if
	:: HIGHEST(node[n].catalog) > position -> position = HIGHEST(node[n].catalog)
	:: else
	fi;
	reads = TAIL
}
#endif

#ifdef TREE /* nothing of it is kept */
#define ENDED pieces = 0; told = 0; since = 0; wanted = 0
#else
#define ENDED skip
#endif

proctype reader() {
	/* reader.go, Read: the end of the stream is the end of the read (tail.go, End). */
	d_step { acked > 0 ->
		wanted = acked
#ifdef CUTS
		; since = deleted
#endif
	};
	do
	/* join.go, readHeld. */
	:: d_step { reads == ARCHIVE && answers(0) -> readArchive(0) }
	:: d_step { reads == ARCHIVE && answers(1) -> readArchive(1) }
#ifdef TREE
	:: d_step { reads == PIECES && RUN(pieces, 0) > 0 -> readPiece() }
	:: d_step { reads == PIECES && RUN(pieces, 0) == 0 -> reads = TAIL }
#endif
	/* join.go, done. */
	:: atomic { reads == TAIL && position >= wanted -> position = 0; begins = 0; upto = 0; head = 0; ENDED; break }
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
#ifdef TREE
#define held(n) HAS(node[n].tree)
#else
#define held(n) node[n].catalog
#endif
#ifdef READ_STALE
#define knows(n) true
#else
#define knows(n) (node[n].at >= head)
#endif
	:: d_step { reads == FRESH && answers(0) && knows(0) ->
		reads = (HIGHEST(held(0)) > position -> ARCHIVE : EMIT)
	   }
	:: d_step { reads == FRESH && answers(1) && knows(1) ->
		reads = (HIGHEST(held(1)) > position -> ARCHIVE : EMIT)
	   }
	/* join.go, emitAll. */
	:: d_step { reads == EMIT ->
#ifdef TREE
		assert(nothingLost(upto, RANGE(begins, upto)));
		assert((emitted(RANGE(begins, upto) & ~UPTO(position)) & UPTO(since)) == 0);
#else
		assert(begins == position + 1); /* nothing is left out */
#endif
		position = upto; begins = 0; upto = 0; head = 0;
		reads = TAIL
	   }
	od
}
#endif

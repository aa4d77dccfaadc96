/* A reader of the log: store/reader. */

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

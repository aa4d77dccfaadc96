/* The workers: workers/drain.go, pack.go and commit.go. They are steps of the owner that they ask: owner.pml includes
 * this among its steps, and has the offers. */

#if WORKERS > 0
	/* workers/drain.go, archiveBatch, asks; drain.go, drain, and ledger.go, drain, answer; workers/pack.go, flush, puts
	 * the segment. A worker takes a run of what is buffered, perhaps not from its beginning, and offers it to any owner
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
/* workers/commit.go, commit: a worker offers what it has put. */
#define offered(f, l) (drained[0] == f && until[0] == l || drained[1] == f && until[1] == l)
#else
#define offered(f, l) true
#endif

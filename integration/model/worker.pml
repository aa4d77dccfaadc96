/* The workers: workers/drain.go, pack.go and commit.go. They are steps of the owner that they ask. */

#if WORKERS > 0
	/* drain, in ledger.go and in workers: a worker takes a run of what is buffered, perhaps not from its beginning, puts it and offers it to any owner
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

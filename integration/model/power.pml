/* The power: what kill -9 of servers and processes does, and a machine that loses what was not synced. */

#ifdef POWER
/* The machine of the servers loses power, once: the manifest loses records that were not synced. The nodes lose power
 * too, or live. Disks may be ahead of the manifest, which claim.go, trustedPosition, finds out. */
proctype power() {
	do
	/* JetStream syncs. Nobody is told when: the delay in trim.go, trim, and checkpointer.go, dropTail, stands for it. */
	:: d_step { failures == 0 && synced < last ->
		synced = last
#ifdef SURVIVORS
		; counted = top
#endif
	   }
	/* The power fails. Processes end as by kill -9, or go on and meet it in manifest/manifest.go, Has. */
	:: atomic { failures == 0 && synced < last ->
		failures = 1;
#ifdef SURVIVORS
		do
		:: i < NODES ->
			if
			:: node[i].does != DOWN -> d_step { stop(i) }
			:: skip
			fi;
			i++
		:: else -> break
		od;
		i = 0;
#else
		d_step { node[0].flying = 0; node[1].flying = 0; stop(0); stop(1) };
#endif
		do
		:: d_step { last > synced ->
#ifndef TREE /* else see below */
			if
			:: rec[last].kind == COMMIT && !vain(last) -> high = rec[last].from - 1
			:: else
			fi;
#endif
			drop(last);
			last--
		   }
		:: break
		od;
		d_step {
			synced = RECORDS; /* nothing is lost any more */
#ifdef SURVIVORS
			counted = 0;
			top = last;
			do
			:: vain(top) -> top--
			:: else -> break
			od;
#endif
#ifdef TREE
			readTree(last);
			high = HIGHEST(HAS(live) | UPTO(gone));
#ifdef CUTS
			cuts = gone;
			if
			:: gone == 0 -> deleted = 0; written = 0; ended = 0 /* the delete itself is lost */
			:: gone > 0 && (HAS(live) & UPTO(gone)) -> written = 0; assert(!ended)
			:: else
			fi;
#endif
			live = 0; gone = 0;
#endif
			check()
		}
	   }
	od
}
#endif

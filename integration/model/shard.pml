/*
 * The protocol of one shard with one log: source stream, manifest, two nodes that own the shard in turn, workers, a
 * reader. README.md says which Go function each step stands for and what is left out. check.sh runs it. The files that
 * are included at the end have an actor each, or what actors work on.
 *
 * Switches: the sizes below; POWER (the manifest may once lose what is not synced, and all nodes crash), SURVIVORS
 * (with POWER: nodes may live through that), READER (somebody reads the log), and one name for each mutation. Each
 * mutation must be caught.
 *
 * Comments name Go files of ingest/shard without a folder, and those of store/manifest with the folder manifest.
 * reader.pml names those of store/reader without a folder.
 */

#ifndef NODES
#define NODES 2
#endif

#ifndef ENTRIES
#define ENTRIES 3 /* published in all; at most 3, see BIT */
#endif
#ifndef CLAIMS
#define CLAIMS 2 /* epochs in all */
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1 /* in all */
#endif
#ifndef WORKERS
#define WORKERS 0 /* 0: any run of entries may be offered at any time; 2: two workers, each with what it has drained */
#endif
#ifndef RECORDS
#define RECORDS 8 /* the manifest's bound; an append beyond it waits for ever */
#endif

#ifndef SEGMENTS
#define SEGMENTS 4 /* with TREE: segments that are put in all; at most 7, see RUN */
#endif
#ifndef MERGES
#define MERGES 0 /* with TREE: how many of them are outputs of merges, at most */
#endif

#include "state.pml"
#ifdef TREE
#include "tree.pml"
#endif
#include "manifest.pml"
#include "node.pml"
#include "recovery.pml"
#include "owner.pml"
#include "power.pml"
#include "clock.pml"
#include "reader.pml"

/* Publishers: what JetStream has acked is in the source stream. */
proctype publisher() {
	do
	:: acked < ENTRIES -> acked++
	od
}

init {
	atomic {
		run owner(0); run owner(1); run publisher();
#if NODES > 2
		run owner(2);
#endif
#ifdef POWER
		run power();
#endif
#ifdef READER
		run reader();
#endif
#ifdef SWEEP
		run clock();
#endif
		skip
	}
}

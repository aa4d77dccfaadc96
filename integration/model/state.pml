/* What there is: sets of entries, the source stream, the manifest with its records, and what each node holds. */

/* Sets of entries are bit masks: bit s is the entry with sequence s. */
#define BIT(s) (1 << (s))
#define UPTO(s) ((2 << (s)) - 2)
#define RANGE(f, l) (UPTO(l) & ~UPTO((f) - 1))
#define LOWEST(m) ((m) & 2 -> 1 : ((m) & 4 -> 2 : 3))
#define HIGHEST(m) ((m) & 8 -> 3 : ((m) & 4 -> 2 : ((m) & 2 -> 1 : 0)))

/* The source stream, as JetStream has it: entries 1..acked were acked, first..acked are still there. */
#ifdef SURVIVORS /* to keep it smaller: what is taken in late need not be published late */
byte acked = ENTRIES;
#else
byte acked;
#endif
byte first = 1;

/* The manifest, see manifest/record.go: records 1..last, of which those below kept are purged. A place in it and the
 * number of power failures before the record was made name a record: together they stand for Record.ID. */
#define CLAIM 1
#define COMMIT 2
#define FLOOR 3
#define CHECKPOINT 4
#define MERGE 5
#define CUT 6
typedef Record {
	byte kind;
	byte epoch;
	byte by;    /* node that appended it */
	byte floor;
	byte from;  /* of COMMIT: the extent's first; of CHECKPOINT: the last record that it has */
	byte to;    /* of COMMIT: the extent's last; of CUT: up to where; of CHECKPOINT: the entries of its rows, a mask */
#ifdef TREE /* and of CHECKPOINT, to is the image */
	byte segment; /* of COMMIT and MERGE: what becomes live; 0: nothing */
	byte inputs;  /* of MERGE: the segments that are live no more, a mask */
#endif
	bit gen;
#ifdef SURVIVORS
	byte prev;  /* the last record that counts, as its author knows; its generation */
	bit prevgen;
	bit endgen; /* generation of the message directly before it, as its author knows: as a rule that is prev */
	byte snap;  /* the newest checkpoint before it */
	bit fromgen; /* of CHECKPOINT: generation of from */
	bit vain;   /* ghost: it counts for nothing */
#endif
}
Record rec[RECORDS + 1]; /* [0] stays empty and stands for what is before the first */
byte last;
byte kept = 1;
byte high; /* ghost: entries 1..high are archived according to all records, purged or not */
byte claims, checkpoints; /* so far */
#ifdef TREE
/* The bucket: segments 1..segments were named, in this order, and inBucket, a mask, are there. What is said of one that
 * is gone stays, as in the memory of who offers it. */
typedef Segment {
	byte has;    /* entries, a mask: its table of contents */
	byte inputs; /* of a merge: of which segments, a mask; else 0 */
	byte epoch;  /* of the owner that gave the work; 0 if any owner may hear of it */
	bit clean;   /* extent.Summary, Cut: written without what is cut, or committed after the cut: tree/cuts.go, mayHave */
}
Segment segment[8]; /* [0] stays empty */
byte segments, merges; /* so far */
byte inBucket;
byte aged;       /* segments up to here were named longer ago than half the grace, or all of it: see clock.pml */
/* Checkpoints in the bucket: what is in them, and which are there. */
typedef Image {
	short tree;
	byte cut;
	byte upto; /* the last record that it has */
}
Image image[CHECKPOINTS + 1];
byte imagesIn, imagesAged;
short live; /* scratch, as those below: a tree */
byte gone;  /* its cut */
#ifdef CUTS
byte cuts;     /* ghost: up to where is cut, according to all records */
byte deleted;  /* ghost: the same, once that was answered to who asked for it */
bit written;   /* ghost: delete --wait was told that no live segment has anything of it */
bit ended;     /* ghost: it has ended, as no object had anything of it */
#endif
#endif
#if NODES > 2
byte used; /* nodes that have claimed: they are alike, so the first to claim are the first ones */
#endif
#define ANYONES 2 /* the generation of a position without an ID */
#ifdef POWER
byte synced; /* records up to here survive a power failure */
bit failures;
#define REBUILD true
#else
#define synced last
#define failures 0
#define REBUILD false
#endif
#ifdef SURVIVORS
byte top; /* ghost: the last record that counts */
byte counted; /* ghost: the last one that counts and is synced */
#define vain(x) rec[x].vain
#else
#define top last
#define vain(x) false
#endif

#if WORKERS > 0
byte drained[WORKERS], until[WORKERS]; /* the run of entries that a worker has drained and put, 0 and 0 without one */
#endif

/* What a node does: claim.go, Claim up to SCANNING; owner.go, Run for SERVING. */
#define DOWN 0
#define CLAIMING 1
#define RECOVERING 2
#define SCANNING 3
#define SERVING 4
#define OPENING 5
#define LOADING 6
/* Where its append stands: manifest/manifest.go, Append up to CONFIRM; append.go, append for APPLY. */
#define NONE 0
#define TRY 1
#define LOOK 2
#define APPLY 3
#define CONFIRM 4
typedef Node {
	byte does;
	byte epoch;
	byte known;   /* the last record that it knows: what an append expects */
#ifdef SURVIVORS
	bit endgen;   /* generation of what is before the record that it appends: of known, or of known - 1 afterwards */
	byte past;    /* the last record that counts, as it knows: not known if what follows it counts for nothing */
	bit pastgen;
	byte snap;    /* the newest checkpoint, as it knows */
	bit fromgen;  /* of a checkpoint that it appends */
	bit gen;      /* of what it has appended */
#ifdef ID_KEPT
	bit stored;   /* it was appended once */
#endif
#ifdef SCAN_UNNAMED
	bit begun;    /* its scan has found a record */
#endif
#ifdef PURGE_UNLOOKED
	byte has;     /* what the newest checkpoint has, as it knows */
#endif
#endif
	/* Its disk, as it sees it while it lives: disk.go, and cache.Position. */
	byte applied; /* source sequence */
	byte at;      /* manifest record */
	byte atgen;   /* that record's generation */
	byte floor;
	byte catalog; /* entries, a mask */
	byte buffer;  /* entries, a mask */
	/* Its append, of which there is one at a time: committer.go, run. */
	byte step;
	bit flying;   /* a copy of it may arrive at any time, even when the node has given up */
	byte kind, pfrom, pto, pfloor;
#ifdef TREE
	byte psegment, pinputs;
	/* In its memory: ledger.go. The catalog is what tables of contents and its own commits told: disk.go, archived. */
	short tree;
	byte cut;        /* up to where the tree's cut goes; 0: no cut */
	byte waste;      /* garbage.go: segments that its merges have replaced, a mask */
	byte wasted;     /* the last record that did */
	byte condemned;  /* ledger.go, condemn: segments that it accepts no more, a mask; old ones it never does */
	byte dead;       /* sweeper.go: segments that are to be deleted, a mask */
	byte asof;       /* the last record that it knew when it condemned them */
	byte image;      /* the newest checkpoint, which it does not delete */
	byte pending;    /* a checkpoint that is put, and to be recorded */
	byte deadImages, condemnedImages;
#endif
}
Node node[NODES];

byte i, newest, seen, f; /* scratch, 0 between steps */

/* manifest/manifest.go, Has: a record is there, or another one is. */
#ifdef SURVIVORS
#define same(x, g) ((x) == 0 || (x) >= kept && (x) <= last && rec[x].gen == (g))
#define other(x, g) ((x) > 0 && (x) >= kept && (x) <= last && rec[x].gen != (g))
#define there(n) same(node[n].at, node[n].atgen) /* append.go, stillThere */
#define current(n) (rec[top].by == n && node[n].epoch == rec[top].epoch && \
	same(node[n].past, node[n].pastgen) && !vain(node[n].past))
#else
#define there(n) true
#define current(n) (node[n].epoch == rec[last].epoch)
#endif
#ifdef LOCAL_UNCHECKED /* what is wrong on one disk only does not count: the mutations show that it leads to worse */
#define owns(n, x) skip
#else
#define owns(n, x) assert(!current(n) || (x)) /* holds for a current owner */
#endif
/* It bounds the search, and is nothing of the program: there a node claims whenever it has the lease. */
#if NODES > 2
#define mayClaim(n) (claims < CLAIMS && last < RECORDS && n <= used)
#else
#define mayClaim(n) (claims < CLAIMS && last < RECORDS && (claims > 0 || n == 0))
#endif
#ifdef SURVIVORS
#define ANSWERED CONFIRM
#else
#define ANSWERED APPLY
#endif
/* committer.go, run: the next record is begun when the one before is done with. */
#define idle(n) (node[n].does == SERVING && node[n].step == NONE && !node[n].flying && last < RECORDS)

/* Up to where all is archived, as n knows it: ledger.go, floorLocked. */
#define archived(n) (node[n].buffer == 0 -> node[n].applied : LOWEST(node[n].buffer) - 1)
#define floorOf(n) (archived(n) > node[n].floor -> archived(n) : node[n].floor)

/* To where n may trim: the floor of a record that it knows and that no power failure can take any more, since it is
 * older than the delay: trim.go, due and safe. */
#ifdef TRIM_TO_APPLIED
#define trimTo(n) node[n].applied
#else
#ifdef TRIM_UNSYNCED
#define trimTo(n) node[n].floor
#else
#ifdef SURVIVORS
#ifdef SURVIVORS_TRIM /* the delay is over, for a record that is lost as well */
#define trimTo(n) (!there(n) -> node[n].floor : (node[n].at <= synced -> node[n].floor : rec[counted].floor))
#else
#define trimTo(n) (!there(n) -> 0 : (node[n].at <= synced -> node[n].floor : rec[counted].floor))
#endif
#else
#define trimTo(n) (node[n].at <= synced -> node[n].floor : rec[synced].floor)
#endif
#endif
#endif

/* Up to where n looks for a checkpoint whose records it may purge, the delay being over: checkpointer.go, dropTail. */
#ifdef PURGE_UNSYNCED
#define safe(n) node[n].at
#else
#define safe(n) (node[n].at <= synced -> node[n].at : synced)
#endif

/* The server takes a record if nobody has appended since its author's last: the sequence that try in
 * manifest/manifest.go expects. */
#ifdef NO_CAS
#define fits(n) (last < RECORDS)
#elif defined(REPLACE_UNFENCED)
#define fits(n) ((last == node[n].known || node[n].kind == MERGE) && last < RECORDS)
#else
#define fits(n) (last == node[n].known && last < RECORDS)
#endif

/* Time, as far as the names of objects tell it: sweeper.go, clock. */

#ifdef SWEEP
/* An object is young, or it is old: too old to be committed (judge.go, tooLate), and old enough to be deleted if
 * nothing names it (sweeper.go, list). In the program the first begins at half of the grace and the second at all of
 * it, so that clocks of two owners may differ by less than half. Here both begin at once, for all owners. */
proctype clock() {
	do
	:: aged < segments -> aged++
#if CHECKPOINTS > 0
	:: imagesAged < checkpoints -> imagesAged++
#endif
	od
}
#endif

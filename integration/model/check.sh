#!/bin/sh
# Checks shard.pml with Spin, in several configurations, and that each mutation of it is caught. Exits with 1 when a
# configuration fails or a mutation does not. `check.sh NAME` checks only what has that name, and keeps what Spin found in
# the folder that it prints, with the model.
set -u
model=$(cd "$(dirname "$0")" && pwd)
only=${1:-}
for tool in spin gcc; do
	if ! command -v $tool >/dev/null; then
		echo "make model needs $tool, the model checker Spin and a C compiler: apt-get install spin gcc (brew install spin)" >&2
		exit 1
	fi
done
work=$(mktemp -d)
if [ -n "$only" ]; then echo "in $work"; else trap 'rm -rf "$work"' EXIT; fi
failed=0

# Nearly all of the state is global, so that COLLAPSE would cost time and save nothing.
#
# explore NAME OPTIMIZATION SWITCHES...: builds the checker and runs it; its output is in $work/NAME/out.
explore() {
	dir=$work/$1
	optimize=$2
	shift 2
	mkdir -p "$dir"
	(
		cd "$dir" || exit
		cp "$model"/*.pml . && spin -a "$@" shard.pml &&
			gcc "$optimize" -w -DSAFETY -DMEMLIM=3800 -o pan pan.c && ./pan -E -m100000 -w24
	) >"$dir/out" 2>&1
	grep -q 'errors: ' "$dir/out" || { cat "$dir/out" >&2; echo "$dir: the checker did not run" >&2; exit 1; }
}

field() { sed -n "s/$1/\\1/p" "$work/$2/out" | head -n1; }

# check NAME SWITCHES...: every state is reached and no assertion fails.
check() {
	name=$1
	shift
	[ -z "$only" ] || [ "$only" = "$name" ] || return 0
	explore "$name" -O2 "$@"
	result=ok
	[ "$(field '.*errors: \([0-9]*\).*' "$name")" = 0 ] || result=FAILED
	if grep -q 'max search depth too small\|out of memory\|resource limits\|Search not completed' "$work/$name/out"; then result=INCOMPLETE; fi
	[ $result = ok ] || failed=1
	printf '%-20s %11s %7s %8s  %-10s %s\n' "$name" "$(field ' *\([0-9]*\) states, stored.*' "$name")" \
		"$(field '.*depth reached \([0-9]*\),.*' "$name")" "$(field '.*elapsed time \([0-9.]*\) seconds' "$name")" $result "$*"
}

# mutant NAME SWITCHES...: an assertion fails. What follows a dot in NAME only tells two runs of one mutation apart.
mutant() {
	name=$1
	shift
	[ -z "$only" ] || [ "$only" = "$name" ] || return 0
	explore "$name" -O1 -D"${name%.*}" -DLOCAL_UNCHECKED "$@"
	result=caught
	grep -q 'assertion violated' "$work/$name/out" || { result='NOT CAUGHT'; failed=1; }
	printf '%-20s %11s %7s %8s  %-10s %s\n' "$name" "$(field ' *\([0-9]*\) states, stored.*' "$name")" \
		"$(field '.*at depth \([0-9]*\).*' "$name")" "$(field '.*elapsed time \([0-9.]*\) seconds' "$name")" "$result" \
		"$(sed -n 's/.*assertion violated \(.*\) (at depth.*/\1/p' "$work/$name/out" | head -n1 | cut -c1-70)"
}

printf '%-20s %11s %7s %8s  %-10s %s\n' configuration states depth seconds result switches
check entries    -DENTRIES=3 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=8
check owners     -DENTRIES=2 -DCLAIMS=3 -DCHECKPOINTS=0 -DRECORDS=7
check checkpoints  -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=1 -DRECORDS=7
check purges     -DENTRIES=1 -DCLAIMS=3 -DCHECKPOINTS=1 -DRECORDS=6
check workers    -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DWORKERS=2
check reader     -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DREADER
check power      -DENTRIES=1 -DCLAIMS=3 -DCHECKPOINTS=1 -DRECORDS=6 -DPOWER
check survivors  -DENTRIES=1 -DCLAIMS=3 -DCHECKPOINTS=1 -DRECORDS=5 -DPOWER -DSURVIVORS
check three      -DENTRIES=1 -DCLAIMS=4 -DCHECKPOINTS=0 -DRECORDS=4 -DPOWER -DSURVIVORS -DNODES=3 -DDISKS_LAST
# The archive: a tree of segments in a bucket, which merge, are cut and deleted.
check merges     -DTREE -DENTRIES=3 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=7 -DSEGMENTS=4 -DMERGES=1 -DDRAIN_FIRST
check remerges   -DTREE -DENTRIES=3 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=7 -DSEGMENTS=5 -DMERGES=2 -DDRAIN_FIRST -DNO_WIPE
check sweeps     -DTREE -DSWEEP -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=3 -DMERGES=1
check images     -DTREE -DSWEEP -DENTRIES=1 -DCLAIMS=2 -DCHECKPOINTS=2 -DRECORDS=6 -DSEGMENTS=1
check cuts       -DTREE -DCUTS -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=7 -DSEGMENTS=3 -DMERGES=1
check cut-merges -DTREE -DCUTS -DENTRIES=3 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=8 -DSEGMENTS=5 -DMERGES=2
check cut-images -DTREE -DCUTS -DENTRIES=1 -DCLAIMS=2 -DCHECKPOINTS=1 -DRECORDS=7 -DSEGMENTS=1
check cut-sweeps -DTREE -DCUTS -DSWEEP -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=2 -DDRAIN_FIRST
check gc-power   -DTREE -DPOWER -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=3 -DMERGES=1
check cut-power  -DTREE -DPOWER -DCUTS -DSWEEP -DENTRIES=1 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=1
check merge-read -DTREE -DREADER -DENTRIES=3 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=4 -DMERGES=1 -DDRAIN_FIRST -DNO_WIPE
check owner-read -DTREE -DREADER -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=5 -DSEGMENTS=3 -DMERGES=1 -DDRAIN_FIRST -DNO_WIPE
check cut-read   -DTREE -DREADER -DCUTS -DENTRIES=2 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=3 -DMERGES=1

small='-DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6'
short='-DENTRIES=1 -DCLAIMS=3 -DCHECKPOINTS=1 -DRECORDS=6'
long='-DENTRIES=1 -DCLAIMS=4 -DCHECKPOINTS=1 -DRECORDS=7 -DDISKS_LAST'
lives='-DENTRIES=1 -DCLAIMS=4 -DCHECKPOINTS=0 -DRECORDS=5 -DPOWER -DSURVIVORS -DDISKS_LAST'
three='-DENTRIES=1 -DCLAIMS=4 -DCHECKPOINTS=0 -DRECORDS=4 -DPOWER -DSURVIVORS -DDISKS_LAST -DNODES=3'
merges='-DTREE -DENTRIES=3 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=7 -DSEGMENTS=5 -DMERGES=2'
cuts='-DTREE -DCUTS -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=7 -DSEGMENTS=3 -DMERGES=1'
gone='-DTREE -DENTRIES=2 -DCLAIMS=2 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=3 -DMERGES=1'
sweeps='-DTREE -DSWEEP -DENTRIES=1 -DCLAIMS=2 -DRECORDS=5 -DSEGMENTS=2'
[ -n "$only" ] || echo
printf '%-20s %11s %7s %8s  %-10s %s\n' mutation states depth seconds result 'assertion that failed'
mutant NO_CAS           $small
mutant RETRY_BLINDLY    $small
mutant NO_FIRST_CHECK   $small
mutant SKIP_NOTHING     $small
mutant NO_TAIL          $small
mutant TRIM_TO_APPLIED  $small
mutant CHECKPOINT_STALE   $short
mutant PURGE_TO_HEAD    $short
mutant READ_NO_BOUNDS   $small -DREADER
mutant READ_STALE       $small -DREADER
mutant TRIM_UNSYNCED    $short -DPOWER
mutant PURGE_UNSYNCED   $short -DPOWER
mutant SCAN_UNCHECKED   $long
mutant GONE_TRUSTED     $short -DPOWER -DDISKS_LAST
mutant LOAD_UNNAMED     $short -DPOWER -DDISKS_LAST
mutant LOAD_PARTS       $short -DPOWER -DDISKS_LAST
mutant UNCONFIRMED      $lives
mutant VOID_COUNTED     $lives
mutant SURVIVORS_TRIM   $lives
mutant PURGE_UNLOOKED   $short -DPOWER -DSURVIVORS
mutant SCAN_UNNAMED     $lives
mutant END_UNNAMED      $lives
mutant CLAIM_UNNAMED    $three
mutant GAP_TRUSTED      $three
mutant ID_KEPT          $three
mutant NEIGHBOURS_UNCHECKED $merges
mutant REPLACE_UNCHECKED $merges
mutant REPLACE_UNFENCED $merges -DDRAIN_FIRST
mutant WASTE_UNSYNCED   $gone -DPOWER
mutant SWEEP_YOUNG      $sweeps -DCHECKPOINTS=0
mutant SWEEP_FENCED     $sweeps -DCHECKPOINTS=0
mutant SWEEP_FENCED.cut $sweeps -DCHECKPOINTS=0 -DCUTS
mutant LATE_ACCEPTED    $sweeps -DCHECKPOINTS=0
mutant CONDEMNED_ACCEPTED -DTREE -DCUTS -DSWEEP -DENTRIES=2 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=2
mutant SWEEP_UNSYNCED   $gone -DPOWER -DSWEEP
mutant CHECKPOINT_CONDEMNED $sweeps -DCHECKPOINTS=1
mutant CHECKPOINT_UNCUT -DTREE -DCUTS -DENTRIES=1 -DCLAIMS=2 -DCHECKPOINTS=1 -DRECORDS=7 -DSEGMENTS=1
mutant MERGE_FORGETS    $cuts
mutant CUT_FORGOTTEN    $cuts
mutant CUT_BUFFERED     $cuts
mutant READ_GONE        -DTREE -DREADER -DENTRIES=3 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=4 -DMERGES=1
mutant READ_UNCUT       -DTREE -DREADER -DCUTS -DENTRIES=2 -DCLAIMS=1 -DCHECKPOINTS=0 -DRECORDS=6 -DSEGMENTS=3 -DMERGES=1
exit $failed

package rebuild

import (
	"fmt"
	"slices"
	"strings"

	"dormouse/internal/shardid"
	"dormouse/internal/topology"
)

// arrange finds out which source streams the shards need. The bucket does not say over how many shards the tenants were
// spread, but of a number that is given it tells whether it can be right: the tenants of all logs must be in the shards
// to which it sends them, or else logs would go on in other shards.
func (r *rebuilding) arrange() error {
	if err := topology.Fits(r.sources, r.Shards); err != nil {
		return err
	}
	r.layout = r.Shards
	if r.layout == 0 {
		r.layout = topology.Partitions(r.sources)
	}
	var ids []string
	missing := false
	highest := shardid.Shard(0)
	for _, s := range r.shards {
		ids, highest = append(ids, s.ID.String()), max(highest, s.ID)
		missing = missing || !slices.ContainsFunc(r.sources, func(o topology.Source) bool { return o.Shard == s.ID })
	}
	switch {
	case r.layout == 0 && !missing: // streams that users have made or added, or the one for all
		return nil
	case r.layout == 0 && len(ids) == 1 && highest == 0:
		r.layout = 1
	case r.layout == 0:
		return fmt.Errorf("%w: the archive is of shards %s, and nothing says how tenants were spread over them: give "+
			"--shards N%s. If the shards were streams of your own, make these first, each beginning above its archive, and "+
			"add them in the order of their shards (dormouse provision --add-stream)", ErrRefused, strings.Join(ids, ", "),
			r.suggest(int(highest)+1))
	}
	if misplaced := r.misplaced(r.layout); misplaced != "" {
		return fmt.Errorf("%w: with --shards %d %s%s", ErrRefused, r.layout, misplaced, r.suggest(int(highest)+1))
	}
	return nil
}

// suggest names the least number of shards that all tenants fit.
func (r *rebuilding) suggest(least int) string {
	for n := max(least, 2); n <= topology.MaxShards; n++ {
		if r.misplaced(n) == "" {
			return fmt.Sprintf(" (%d would fit the tenants that are there, if it is not another number above)", n)
		}
	}
	return ""
}

// misplaced names a log that is not in the shard to which tenants are sent when there are n of them, of the first and
// the last log of each segment.
func (r *rebuilding) misplaced(n int) string {
	for _, s := range r.shards {
		if int(s.ID) >= n {
			return fmt.Sprintf("there is no shard %s, of which the archive has logs", s.ID)
		}
		for _, log := range s.someLogs() {
			tenant, _, _ := strings.Cut(log, ".")
			if want := topology.PartitionOf(tenant, n); n > 1 && want != s.ID {
				return fmt.Sprintf("log %s would go on in shard %s, and is archived in shard %s", log, want, s.ID)
			}
		}
	}
	return ""
}

// someLogs returns the first and the last log of each segment.
func (s *shard) someLogs() (logs []string) {
	for p := range s.Tree.Overlapping("", "") {
		logs = append(logs, p.Segment.First, p.Segment.Last)
	}
	for _, n := range s.young {
		for _, seg := range n.segments {
			logs = append(logs, seg.First, seg.Last)
		}
	}
	return logs
}

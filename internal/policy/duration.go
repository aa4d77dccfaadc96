package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// units of durations besides those of Go, the longest first.
var units = []struct {
	name string
	unit time.Duration
}{{"w", 7 * day}, {"d", day}}

// ParseDuration reads durations as Go writes them, before which there may be weeks and days: 30d, 1w, 1d12h, 90s.
func ParseDuration(s string) (time.Duration, error) {
	fail := fmt.Errorf("%q is no duration: want for example 30d, 2w, 12h, 1m30s", s)
	var sum time.Duration
	rest := s
	for _, u := range units {
		number, tail, found := strings.Cut(rest, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/u.unit) {
			return 0, fail
		}
		if sum += time.Duration(n) * u.unit; sum < 0 {
			return 0, fail
		}
		if rest = tail; rest == "" {
			return sum, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || sum+d < 0 {
		return 0, fail
	}
	return sum + d, nil
}

// FormatDuration writes a duration that is not negative as people would: without what is zero in it, in days from one
// day on. ParseDuration reads it back, but for Forever.
func FormatDuration(d time.Duration) string {
	if d == Forever {
		return forever
	}
	text := ""
	if d >= day {
		text = strconv.FormatInt(int64(d/day), 10) + "d"
		if d %= day; d == 0 {
			return text
		}
	}
	rest := d.String()
	if strings.HasSuffix(rest, "m0s") {
		rest = strings.TrimSuffix(rest, "0s")
	}
	if strings.HasSuffix(rest, "h0m") {
		rest = strings.TrimSuffix(rest, "0m")
	}
	return text + rest
}

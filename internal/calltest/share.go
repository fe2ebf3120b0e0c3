package calltest

import (
	"math"
	"testing"

	"github.com/inboardmesh/inboard/internal/racing"
)

// Many is how many calls show shares within 1.6 points, which the race detector need
// not see.
func Many() int {
	if racing.Enabled {
		return 1_000
	}
	return 16_000
}

// Share fails the test if a part of all calls is further from its share than chance
// explains: five standard deviations are one failure in 1.7 million runs.
func Share(t testing.TB, what string, part, all int, want float64) {
	t.Helper()
	got := float64(part) / float64(all)
	if tolerance := 5 * math.Sqrt(want*(1-want)/float64(all)); math.Abs(got-want) > tolerance {
		t.Errorf("%s: %.4f of the calls, want %.4f ± %.4f", what, got, want, tolerance)
	}
}

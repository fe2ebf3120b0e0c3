package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what one step came to.
type result struct {
	title string
	// all is of all calls of the step, after of those after the step's effect.
	all, after summary
	retries    int
	breakers   string
}

// resultColumns are the columns of a table of results.
func resultColumns() []column {
	return []column{
		{title: "step", width: 29, left: true},
		{title: "calls", width: 5},
		{title: "failed"},
		{title: "refused"},
		{title: "ok", width: 6},
		{title: "v1", width: 4},
		{title: "v2", width: 4},
		{title: "ada", width: 4, left: true},
		{title: "p50", width: 6},
		{title: "p99", width: 6},
		{title: "retries"},
		{title: "breakers of v2", left: true},
		{title: "caller seen as", left: true},
	}
}

// cells are the result in a table of results. How calls were split is of those
// after the step's effect.
func (r *result) cells() []string {
	callers := make([]string, len(r.all.callers))
	for i, id := range r.all.callers {
		callers[i] = shortID(id)
	}
	return []string{
		r.title, strconv.Itoa(r.all.calls), strconv.Itoa(r.all.failed), strconv.Itoa(r.all.refused), ok(r.all),
		percent(r.after.share["v1"]), percent(r.after.share["v2"]), spread(r.after.ada),
		milliseconds(r.all.p50), milliseconds(r.all.p99), strconv.Itoa(r.retries), r.breakers, strings.Join(callers, ", "),
	}
}

// sentence is the result while the story is being told.
func (r *result) sentence() string {
	refused := ""
	if r.all.refused > 0 {
		refused = fmt.Sprintf(", %d refused as expected", r.all.refused)
	}
	return fmt.Sprintf("%d calls, %d failed%s; v1 %s, v2 %s, ada %s; p50 %s, p99 %s; %d retries",
		r.all.calls, r.all.failed, refused, percent(r.after.share["v1"]), percent(r.after.share["v2"]), spread(r.after.ada),
		milliseconds(r.all.p50), milliseconds(r.all.p99), r.retries)
}

// breakers says how the breakers are: closed if all of them are.
func breakers(states map[string]string) string {
	found := slices.Collect(maps.Values(states))
	for _, state := range []string{"open", "half-open"} {
		if slices.Contains(found, state) {
			return state
		}
	}
	return "closed"
}

// ok is rounded down: 100% means all.
func ok(s summary) string {
	if s.calls == 0 {
		return "-"
	}
	share := 100 * float64(s.calls-s.failed-s.refused) / float64(s.calls)
	return fmt.Sprintf("%.1f%%", math.Floor(share*10)/10)
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", share) }

// spread names the version that answered ada, if it was one.
func spread(share map[string]float64) string {
	switch versions := slices.Sorted(maps.Keys(share)); len(versions) {
	case 0:
		return "-"
	case 1:
		return versions[0]
	}
	return "both"
}

func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

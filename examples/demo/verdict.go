package main

import (
	"errors"
	"fmt"
	"time"
)

// maxListed bounds the failures that are listed.
const maxListed = 20

// verdict prints what all calls together came to. It is an error if one failed
// that should not have, or if the story was broken off.
func (s *story) verdict(took time.Duration, brokenOff error) error {
	s.collect("afterwards")
	all := summarize(s.traffic.since(0))
	t := &table{out: s.out, columns: resultColumns()}
	fmt.Fprintln(s.out)
	t.header()
	for _, r := range s.results {
		t.row(r.cells()...)
	}
	fmt.Fprintln(s.out)
	if brokenOff != nil {
		fmt.Fprint(s.out, "broken off: ")
	}
	fmt.Fprintf(s.out, "%d calls in %.0fs, %d failed", all.calls, took.Seconds(), all.failed)
	if all.refused > 0 {
		fmt.Fprintf(s.out, "; %d to the broken v2 were refused, as expected, and are counted apart", all.refused)
	}
	fmt.Fprintln(s.out)
	if all.failed == 0 {
		return brokenOff
	}
	for i, one := range s.failures {
		if i == maxListed {
			fmt.Fprintf(s.out, "  and %d more\n", len(s.failures)-i)
			break
		}
		why := one.sample.reply.Error
		fmt.Fprintf(s.out, "  %s: %s of %s by %s after %s: %s: %s\n", one.step, one.sample.start.Format("15:04:05.000"),
			one.sample.user, one.sample.reply.Via, milliseconds(one.sample.took), why.Kind, why.Message)
	}
	return errors.Join(brokenOff, fmt.Errorf("%d calls failed", all.failed))
}

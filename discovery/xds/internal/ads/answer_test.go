package ads_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// A server that pushes everything whenever anything changes repeats most of it.
func TestX32_WhatIsRepeatedDoesNotDelayWhatChanges(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.watch(eds, "e")
		h.watch(lds, "l")
		s.RecvType(eds)
		s.RecvType(lds)
		start := time.Now()
		const pushes = 1000
		for i := range pushes {
			text := fmt.Sprint(i)
			h.respond(s, lds, text, "l"+text, "l=1")
			h.respond(s, eds, text, "e"+text, "e=!bad")
			h.respond(s, cds, text, "c"+text, "a="+text)
			if events := w.take(); len(events) != 1 && text != "1" || time.Since(start) != 0 { // it was 1 before
				h.t.Fatalf("push %d: %q after %v", i, events, time.Since(start))
			}
		}
		changes := 0
		answers := make(map[string]string) // the nonces of the last ones
		count := func() (others int) {
			for _, r := range s.Pending() {
				if r.Nonce == "" {
					continue
				}
				answers[r.TypeURL] = r.Nonce
				if r.TypeURL == cds {
					changes++
				} else {
					others++
				}
			}
			return others
		}
		if others := count(); changes != pushes-1 && changes != pushes || others > 105 {
			h.t.Errorf("%d answers to %d changes, and %d others, want about 100", changes, pushes, others)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if others := count(); others > 2 {
			h.t.Errorf("%d answers to repetitions, want one for each type", others)
		}
		for typeURL, want := range map[string]string{lds: "l999", eds: "e999", cds: "c999"} {
			if answers[typeURL] != want {
				h.t.Errorf("the last answer about %s is for %q, want %q", typeURL, answers[typeURL], want)
			}
		}
	})
}

// The answer to a repetition that waits is not overtaken by the one to a change.
func TestX32_AChangeIsAnsweredAtOnceAfterARepetition(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		for i := range 100 { // what may come at once
			h.respond(s, cds, "v", fmt.Sprint(i), "a=1")
			h.expectACK(s, cds, "v", fmt.Sprint(i), "a")
		}
		start := time.Now()
		h.respond(s, cds, "v", "held", "a=1")
		s.ExpectNone(50 * time.Millisecond)
		h.respond(s, cds, "v2", "n2", "a=2")
		h.expectACK(s, cds, "v", "held", "a")
		h.expectACK(s, cds, "v2", "n2", "a")
		if got := time.Since(start); got != 50*time.Millisecond {
			h.t.Errorf("answered after %v", got)
		}
	})
}

// A server that sends the same in a loop without waiting for answers gets half of a
// processor at most.
func TestX32_RepetitionsThatCostMuchLeaveHalfOfAProcessor(t *testing.T) {
	t.Parallel()
	const cost = 10 * time.Millisecond
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.respond(s, cds, "v2", "n2", "a=!slow")
		time.Sleep(time.Second)
		w.expect(h.t, "ambient slow")
		start := time.Now()
		for i := range 50 {
			h.respond(s, cds, fmt.Sprint(i), fmt.Sprint(i), "a=!slow")
		}
		h.respond(s, cds, "v3", "n3", "a=3")
		for len(w.take()) == 0 {
			time.Sleep(time.Millisecond)
		}
		if got := time.Since(start); got < 50*2*cost || got > 50*2*cost+cost {
			h.t.Errorf("read after %v, want twice what the repetitions cost", got)
		}
	}, func(o *ads.Options) {
		for i := range o.Types {
			o.Types[i].Decode = func(b []byte) (string, any, error) {
				if strings.HasSuffix(string(b), "slow") {
					time.Sleep(cost)
				}
				return decodeText(b)
			}
		}
	})
}

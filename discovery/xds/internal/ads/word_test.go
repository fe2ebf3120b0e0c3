package ads_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

// unanswered reports whether each error only says that the time is over.
func unanswered(events []event) bool {
	return !slices.ContainsFunc(events, func(e event) bool { return !errors.Is(e.err, ads.ErrUnanswered) })
}

func TestSilenceIsToldFromTheWordOfTheServer(t *testing.T) {
	t.Parallel()
	t.Run("a server that says nothing", func(t *testing.T) {
		t.Parallel()
		both(t, func(h *harness) {
			_, w := h.start(cds, "a")
			time.Sleep(16 * time.Second)
			if events := w.expect(h.t, "error did not answer within 15s"); !notFound(events) || !unanswered(events) {
				h.t.Errorf("events %q, want that there was no answer", events)
			}
		})
	})
	t.Run("a list without the name", func(t *testing.T) {
		t.Parallel()
		sotw(t, func(h *harness) {
			s, w := h.start(cds, "a")
			h.respond(s, cds, "v1", "n1", "b=1")
			time.Sleep(16 * time.Second)
			if events := w.expect(h.t, "error did not answer within 15s"); !notFound(events) || unanswered(events) {
				h.t.Errorf("events %q, want that it does not exist", events)
			}
		})
	})
	t.Run("a removal", func(t *testing.T) {
		t.Parallel()
		delta(t, func(h *harness) {
			s, w := h.start(cds, "a")
			h.respond(s, cds, "v1", "n1", "removed:a")
			synctest.Wait()
			if events := w.expect(h.t, "error says that it does not exist"); !notFound(events) || unanswered(events) {
				h.t.Errorf("events %q, want that it does not exist", events)
			}
		})
	})
}

func TestDoRunsAmongTheEvents(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		var order []string
		h.client.Do(func() { order = append(order, "first") })
		h.client.Do(func() { order = append(order, "second") })
		synctest.Wait()
		if !slices.Equal(order, []string{"first", "second"}) {
			h.t.Errorf("ran %q", order)
		}
		if err := h.client.Close(); err != nil {
			h.t.Fatal(err)
		}
		h.client.Do(func() { h.t.Error("ran after Close") })
		synctest.Wait()
	})
}

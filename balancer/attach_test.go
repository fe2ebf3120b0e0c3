package balancer

import "testing"

// TestWhatIsAttachedFirstStays: of several that make something for a host one wins.
func TestWhatIsAttachedFirstStays(t *testing.T) {
	t.Parallel()
	localities := []LocalityEndpoints{{Weight: 1, Endpoints: []Endpoint{{Address: "a"}}}}
	s := NewSet(Config{}, func(*Host) any { return nil })
	added, _ := s.Update(Config{}, localities)
	h := added[0]
	if got := h.Attached(); got != nil {
		t.Fatalf("%v is attached before anything was", got)
	}
	if got := h.Attach("first"); got != "first" {
		t.Errorf("%v is attached, want the first", got)
	}
	if got := h.Attach("second"); got != "first" || h.Attached() != "first" {
		t.Errorf("%v is attached, want the first", got)
	}
	eager, _ := NewSet(Config{}, func(*Host) any { return "made" }).Update(Config{}, localities)
	if got := eager[0].Attach("late"); got != "made" {
		t.Errorf("%v is attached, want what the set's function has made", got)
	}
}

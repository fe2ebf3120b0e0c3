package route

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// TestV52_EveryCommandStandsForNothingWithoutItsFact: a formatter meets a request of
// which nothing is known, and writes nothing.
func TestV52_EveryCommandStandsForNothingWithoutItsFact(t *testing.T) {
	t.Parallel()
	tried := 0
	for command := range discovery.Command(64) {
		part := discovery.FormatPart{Command: command, Name: "x-a", Alternative: "x-b", MaxLength: 5}
		for _, header := range []Header{headers(nil), headers{}} {
			for _, req := range []*Request{{}, {Header: header}} {
				d := Decision{}
				if got := d.expand(&discovery.Format{Parts: []discovery.FormatPart{part}}, req, &Facts{}, header); len(got) > 5 {
					t.Errorf("command %d: %q", command, got)
				}
				tried++
			}
		}
	}
	if tried == 0 {
		t.Error("nothing was tried")
	}
}

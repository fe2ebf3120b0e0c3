package ads_test

import (
	"fmt"
	"strings"
	"testing"
)

// A gRPC server takes no more than 4 MiB at a time unless it is told, and what it
// refuses once it would refuse with each stream.
func TestAFirstRequestWithManyNamesIsSplit(t *testing.T) {
	t.Parallel()
	delta(t, func(h *harness) {
		const names = 1000
		long := strings.Repeat("x", 5000)
		for i := range names {
			h.watch(cds, fmt.Sprint(i, long))
		}
		for life := range 2 {
			s := h.server.Accept()
			all := make(map[string]bool)
			requests := 0
			for len(all) < names {
				r := s.RecvType(cds)
				size := 0
				for _, name := range r.Subscribe {
					if all[name] {
						t.Fatal("a name is subscribed twice")
					}
					all[name] = true
					size += len(name)
				}
				for name, version := range r.InitialVersions {
					if requests > 0 {
						t.Error("versions are in another request than the first")
					}
					if !all[name] {
						t.Error("there is a version of a name that is not subscribed")
					}
					size += len(name) + len(version)
				}
				if life == 1 && requests == 0 && len(r.InitialVersions) != len(r.Subscribe) {
					t.Errorf("%d versions with %d names", len(r.InitialVersions), len(r.Subscribe))
				}
				if size > 4<<20-1<<16 {
					t.Errorf("a request has %d bytes", size)
				}
				requests++
			}
			if want := 2 + life; requests < want || life == 1 && requests != want { // at first there may not be all watches
				t.Errorf("life %d: %d requests, want %d", life, requests, want)
			}
			resources := make([]any, 0, names)
			for name := range all {
				resources = append(resources, name+"=1")
			}
			h.respond(s, cds, "v1", "n1", resources...)
			h.expectACK(s, cds, "v1", "n1")
			s.End(errRestart)
		}
	})
}

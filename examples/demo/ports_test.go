package main

import (
	"net"
	"strings"
	"testing"
)

func claimTestPorts(t *testing.T) *ports {
	t.Helper()
	p, err := claimPorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.release(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Two demos at once chose the same port in about one of a hundred runs, when
// each drew its ports by chance.
func TestDemosAtOnceNeverShareAPort(t *testing.T) {
	t.Parallel()
	const demos = 20
	seen := map[string]bool{}
	for range demos {
		p := claimTestPorts(t)
		for range 11 {
			address, port, err := p.address(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if seen[address] || address != "127.0.0.1:"+port {
				t.Fatalf("address %s, port %s, given before %t", address, port, seen[address])
			}
			seen[address] = true
		}
	}
}

func TestPortsThatSomebodyListensOnAreLeftOut(t *testing.T) {
	t.Parallel()
	p := claimTestPorts(t)
	taken := loopback(p.next)
	if ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", taken); err == nil { // else somebody else does
		defer ln.Close()
	}
	address, _, err := p.address(t.Context())
	if err != nil || address == taken {
		t.Errorf("address %q, error %v", address, err)
	}
	for err == nil {
		_, _, err = p.address(t.Context())
	}
	if !strings.Contains(err.Error(), "no free port is left in 2") {
		t.Errorf("error %v", err)
	}
}

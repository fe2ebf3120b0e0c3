package inbound

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/inboardmesh/inboard/discovery"
)

// limited is permissive with limits of headers: of the chain for TLS, and of the other.
func limited(secure, plain discovery.HeaderLimits) *discovery.Inbound {
	in := permissive()
	for i := range in.Chains {
		in.Chains[i].Headers = plain
		if in.Chains[i].TLS != nil {
			in.Chains[i].Headers = secure
		}
	}
	return in
}

// TestBH3_AServerThatReadsLessThanIsAllowedIsWarnedOf, once: when it starts, or when a
// later configuration allows more. Who has chosen to read less than the default knows it.
func TestBH3_AServerThatReadsLessThanIsAllowedIsWarnedOf(t *testing.T) {
	t.Parallel()
	usual := discovery.HeaderLimits{Bytes: 60 << 10, Count: 100}
	large := discovery.HeaderLimits{Bytes: 200 << 10, Count: 100}
	const needed = 200<<10 + 32*100 + 512
	for _, tt := range []struct {
		name        string
		first, then *discovery.Inbound
		reads       []int
		want        int // warnings
	}{
		{"the default", limited(usual, usual), nil, []int{64 << 10}, 0},
		{"a server that reads less than the default", limited(usual, usual), nil, []int{4 << 10}, 0},
		{"a server that reads as much as is needed", limited(large, usual), nil, []int{needed}, 0},
		{"a server that reads a little less", limited(large, usual), nil, []int{needed - 1}, 1},
		{"the chain for plaintext counts too", limited(usual, large), nil, []int{64 << 10}, 1},
		{"it is said once", limited(large, large), limited(large, large), []int{64 << 10, 64 << 10}, 1},
		{"a later configuration", limited(usual, usual), limited(usual, large), []int{64 << 10}, 1},
		{"a later configuration with less", limited(large, large), limited(usual, usual), []int{needed}, 0},
		{"no limit", limited(usual, usual), limited(discovery.HeaderLimits{}, discovery.HeaderLimits{}), []int{64 << 10}, 0},
		{"no limit of their number", limited(discovery.HeaderLimits{Bytes: 200 << 10}, usual), nil, []int{needed}, 0},
		{"many small ones", limited(discovery.HeaderLimits{Bytes: 60 << 10, Count: 1000}, usual), nil, []int{64 << 10}, 1},
		{"no server", limited(large, large), limited(usual, large), nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				var warnings []string
				b.listeners.options.Warn = func(listener, text string) {
					b.count(func() { warnings = append(warnings, listener+": "+text) })
				}
				ln := b.listen(tt.first)
				for _, limit := range tt.reads {
					b.listeners.ReadBy(ln, limit)
				}
				if tt.then != nil {
					b.source.publish(address, discovery.Update[*discovery.Inbound]{Value: tt.then})
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				if len(warnings) != tt.want || tt.want > 0 && !strings.HasPrefix(warnings[0], address+": max_request_headers_kb has no effect above what the server reads, ") {
					t.Errorf("warnings %q, want %d", warnings, tt.want)
				}
			})
		})
	}
}

// TestBH3_WhatAServerHasToReadIsTheMostThatAChainAllows: of listeners of this mesh.
func TestBH3_WhatAServerHasToReadIsTheMostThatAChainAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if got := b.listeners.MaxHeaderBytes(); got != 0 {
			t.Errorf("%d without a listener", got)
		}
		ln := b.listen(limited(discovery.HeaderLimits{Bytes: 96 << 10, Count: 10}, discovery.HeaderLimits{Bytes: 1 << 10}))
		if got, most, want := b.listeners.HeaderBytes(ln), b.listeners.MaxHeaderBytes(), 96<<10+320+512; got != want || most != want {
			t.Errorf("%d, at most %d, want %d", got, most, want)
		}
		if got := New(Options{}).HeaderBytes(ln); got != 0 {
			t.Errorf("%d for a listener of another mesh", got)
		}
		if got := b.listeners.HeaderBytes(ln.inner); got != 0 {
			t.Errorf("%d for another listener", got)
		}
	})
}

package mesh_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

const (
	ejectingAll = `"outlierDetection": {"consecutive5xx": 5, "maxEjectionPercent": 100, "interval": "3600s"}`
	overHTTP2   = `, "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
		"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicitHttpConfig": {"http2ProtocolOptions": {}}}}`
)

// overProtocols runs a test in a bubble for each protocol, with a mesh whose clusters
// have these fields.
func overProtocols(t *testing.T, fields string, payments int, test func(t *testing.T, g *ground, call func(context.Context) (string, error), ejected map[string]bool)) {
	t.Helper()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fields := fields
				if protocol == "HTTP/2" {
					fields += overHTTP2
				}
				ejected := make(map[string]bool)
				g := balancingGround(t, fields, payments, mesh.WithHooks(&observe.Hooks{
					EndpointEjected: func(e observe.EjectionEvent) { ejected[e.Endpoint] = true },
				}))
				call := g.callHTTP
				if protocol == "gRPC" {
					call = g.callGRPC
				}
				test(t, g, call, ejected)
			})
		})
	}
}

// The deadlines of callers are as short as those like, who may be outsiders: whoever
// answers everybody else is not taken out for them. One who answers nobody is.
func TestDeadlinesOfCallersEjectOnlyWhoAnswersNobody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		answer, patience time.Duration
		want             int
	}{
		{5 * time.Millisecond, 2 * time.Millisecond, 0},
		{time.Hour, 500 * time.Millisecond, 0},
		{time.Hour, 1500 * time.Millisecond, 3},
	} {
		t.Run(fmt.Sprintf("answers take %v, callers %v", tt.answer, tt.patience), func(t *testing.T) {
			t.Parallel()
			overProtocols(t, ejectingAll, 3, func(t *testing.T, g *ground, call func(context.Context) (string, error), ejected map[string]bool) {
				payments := g.counting(3, nil)
				for range 12 { // all are connected to
					if _, err := call(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				for _, p := range payments {
					p.delay.Store(int64(tt.answer))
				}
				for range 40 {
					ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
					_, _ = call(ctx)
					cancel()
				}
				synctest.Wait()
				if len(ejected) != tt.want {
					t.Errorf("ejected %v, want %d", ejected, tt.want)
				}
			})
		})
	}
}

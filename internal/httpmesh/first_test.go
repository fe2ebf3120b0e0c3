package httpmesh

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// silent is a source that says nothing of any target.
type silent struct{ fixed }

func (silent) WatchTarget(string, func(discovery.Update[*discovery.Target])) func() { return func() {} }

// TestAConfigurationIsWaitedForOnce: for 15 s without a deadline, and no longer than the
// call may take.
func TestAConfigurationIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		own, given time.Duration
		took       time.Duration
	}{
		{"without a deadline", 0, 0, 15 * time.Second},
		{"with one of the caller", 0, time.Minute, time.Minute},
		{"with a timeout of the call", time.Second, 0, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				hooks := &observe.Hooks{}
				upstreams := upstream.NewManager(upstream.Options{Hooks: hooks})
				outbound := pipeline.NewOutbound(silent{}, upstreams, hooks)
				defer upstreams.Close()
				defer outbound.Close()
				ctx := pipeline.WithOptions(context.Background(), pipeline.CallOptions{Timeout: tt.own})
				if tt.given > 0 {
					bounded, cancel := context.WithTimeout(ctx, tt.given)
					defer cancel()
					ctx = bounded
				}
				begin := time.Now()
				resp, err := NewTransport(outbound, nil).RoundTrip(newRequest(ctx, t, http.MethodGet, paymentURL, http.NoBody))
				failed(t, resp, err, outcome.NoConfig)
				if took := time.Since(begin); took != tt.took {
					t.Errorf("it was waited for %v, want %v", took, tt.took)
				}
			})
		})
	}
}

package mesh_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/mesh"
)

// BL11: a policy that panics when the endpoints change, or picks none, fails the calls
// that need it, by its name, and nothing else.
func TestBL11_APolicyOfTheApplicationThatPanicsFailsItsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Int32
		log := new(lines)
		own := mesh.Balancing{Policies: map[string]func([]*balancer.Host, map[string]any) balancer.Picker{
			"acme.last": func(hosts []*balancer.Host, _ map[string]any) balancer.Picker {
				switch broken.Load() {
				case 1:
					panic("no idea")
				case 2:
					return nil
				case 3:
					return last{1000}
				}
				return last{len(hosts)}
			},
		}}
		// A call must not keep the permit.
		g := balancingGround(t, `"metadata": {"filterMetadata": {"inboard.balancer": {"policy": "acme.last"}}},
			"circuitBreakers": {"thresholds": [{"maxRequests": 1}]}`, 3, own,
			mesh.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError}))))
		g.counting(3, nil)
		calls := map[string]func(context.Context) (string, error){"HTTP": g.callHTTP, "gRPC": func(context.Context) (string, error) { return g.callGRPCNow() }}
		for state, want := range []string{"", "panic in New: no idea", "no picker from New", "picked host 999 of", ""} {
			broken.Store(int32(state))
			g.plane.Set(groundEndpoints(1, 2+state%2)...)
			time.Sleep(time.Second)
			for name, call := range calls {
				for range 3 {
					_, err := call(t.Context())
					switch {
					case want == "" || err == nil:
						if err != nil || want != "" {
							t.Errorf("%s: error %v, want %q", name, err, want)
						}
					case !strings.Contains(err.Error(), `load-balancing policy "acme.last": `+want):
						t.Errorf("%s: error %v, want %q", name, err, want)
					}
				}
			}
			if want != "" && !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q: %s", want, log)
			}
		}
	})
}

package filter_test

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/cors"
	"github.com/inboardmesh/inboard/internal/filter/fault"
	"github.com/inboardmesh/inboard/internal/route"
)

// TestAChainIsIdleIfNoFilterHasAnythingToDo: then it is not run. What a route says
// counts, and not what the listener says for the other routes.
func TestAChainIsIdleIfNoFilterHasAnythingToDo(t *testing.T) {
	t.Parallel()
	abort := &discovery.Fault{Abort: &discovery.FaultAbort{PerMillion: 1}}
	for name, c := range map[string]struct {
		listener, route discovery.FilterConfig
		disabled        bool
		want            bool
	}{
		"a fault that injects nothing":           {listener: &discovery.Fault{}, want: true},
		"a fault with an abort":                  {listener: abort},
		"a fault with a delay":                   {listener: &discovery.Fault{Delay: &discovery.FaultDelay{}}},
		"a fault with a limit":                   {listener: &discovery.Fault{RateLimit: &discovery.FaultRateLimit{}}},
		"a fault of the route":                   {listener: &discovery.Fault{}, route: abort},
		"a fault that the route takes away":      {listener: abort, route: &discovery.Fault{}, want: true},
		"a fault that the route disables":        {listener: abort, disabled: true, want: true},
		"a policy of CORS without an origin":     {listener: &discovery.CORS{PerMillion: 1_000_000}, want: true},
		"a policy of CORS that stops all":        {listener: &discovery.CORS{PerMillion: 1_000_000, StopUnmatched: true}},
		"a policy of CORS with an origin":        {listener: &discovery.CORS{PerMillion: 1_000_000, AllowOrigins: make([]discovery.StringMatch, 1)}},
		"a policy of CORS for none":              {listener: &discovery.CORS{AllowOrigins: make([]discovery.StringMatch, 1)}, want: true},
		"a filter that does not speak of itself": {listener: config()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := local("/")
			if c.route != nil || c.disabled {
				r.Filters = map[string]discovery.FilterOverride{"f": {Config: c.route, Disabled: c.disabled}}
			}
			source := table(r)
			var faults fault.Faults
			chain, err := filter.Compile([]discovery.HTTPFilter{{Name: "f", Config: c.listener}}, source, func(config discovery.FilterConfig) (filter.Filter, error) {
				switch config := config.(type) {
				case *discovery.CORS:
					return cors.New(config), nil
				case *discovery.Fault:
					if config.MaxActive == 0 {
						return faults.Filter(config), nil
					}
				}
				return script(nil), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			decision, _ := route.Compile(source).Match(&route.Request{Method: "GET", Host: "a", Path: "/x"})
			if got := chain.Idle(&decision); got != c.want {
				t.Errorf("idle: %v, want %v", got, c.want)
			}
		})
	}
	if !(*filter.Chain)(nil).Idle(&route.Decision{}) {
		t.Error("a chain without filters is not idle")
	}
}

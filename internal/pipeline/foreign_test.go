package pipeline

import (
	"context"
	"fmt"
	"regexp"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

// TestBC5_APanicInAHookKeepsNoPermit: a hook is foreign code, too. Whichever of them
// panics, or ends the goroutine, and whatever the call is doing, nothing stays
// counted, and the next call works.
func TestBC5_APanicInAHookKeepsNoPermit(t *testing.T) {
	t.Parallel()
	failing := always(response(503))
	calls := map[string]struct {
		edit []func(*discovery.Target)
		make func() *adapter
	}{
		"a call": {make: func() *adapter { return &adapter{} }},
		"a call that is retried": {
			edit: []func(*discovery.Target){retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx})},
			make: func() *adapter { return &adapter{attempt: failing} },
		},
		"a call that is refused": {
			edit: []func(*discovery.Target){func(t *discovery.Target) { v1(t).Limits[0].MaxRequests = 0 }},
			make: func() *adapter { return &adapter{} },
		},
		"a call without a permit to retry": {
			edit: []func(*discovery.Target){retrying(retry.Policy{MaxRetries: 2, On: retry.On5xx}), func(t *discovery.Target) { v1(t).Limits[0].MaxRetries = 0 }},
			make: func() *adapter { return &adapter{attempt: failing} },
		},
		"a call that is hedged": {
			edit: []func(*discovery.Target){retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx}), func(t *discovery.Target) {
				top(t).Forward.Hedge = &retry.Hedge{Delay: 10 * time.Millisecond}
			}},
			make: func() *adapter {
				return &adapter{hedgeable: true, attempt: func(ctx context.Context, a *Attempt, n int) outcome.Outcome {
					switch n {
					case 1:
						time.Sleep(15 * time.Millisecond)
						return response(503)
					case 4:
						time.Sleep(20 * time.Millisecond)
						return response(200)
					}
					return hang(ctx, a, n)
				}}
			},
		},
	}
	ends := map[string]func(){"a panic": func() { panic("hook") }, "the end of the goroutine": runtime.Goexit}
	for name, call := range calls {
		for _, event := range []string{"^attempt 1$", "^attempt 2$", "^attempt 1 ended", "^attempt 2 ended", "^attempt . ended", "^call ended", "^overflow", "^breaker", "^ejection"} {
			matches := regexp.MustCompile(event)
			for how, end := range ends {
				t.Run(fmt.Sprintf("%s in %q, %s", how, event, name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						b := newBench(t)
						settings := &breaker.Settings{FailureRatio: 0.1, MinRequests: 1, Window: time.Second, OpenTime: time.Millisecond, HalfOpenProbes: 1}
						target := newTarget(append(call.edit, routeTimeout(time.Second), func(t *discovery.Target) {
							v1(t).EndpointBreaker = settings
							v1(t).Outlier = &balancer.OutlierConfig{Interval: time.Hour, BaseEjectionTime: time.Millisecond, MaxEjectionPercent: 50, Consecutive5xx: balancer.ConsecutiveFailures{Threshold: 1, Enforcing: 100}}
						})...)
						b.configure(target)
						for range 3 {
							b.onHook = func(told string) {
								if matches.MatchString(told) {
									end()
								}
							}
							done := make(chan struct{})
							go func() {
								defer close(done)
								defer func() { _ = recover() }()
								b.run(t.Context(), call.make())
							}()
							<-done
							b.onHook = nil
							synctest.Wait()
							b.idle("v1")
							time.Sleep(time.Second)
						}
					})
				})
			}
		}
	}
}

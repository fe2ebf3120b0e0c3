package health_test

import (
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/health"
)

func ExampleTracker() {
	config := &health.Config{
		Interval: 5 * time.Second, UnhealthyEdgeInterval: time.Second,
		UnhealthyThreshold: 2, HealthyThreshold: 1,
		HTTP: &health.HTTP{Path: "/healthz"},
	}
	zero := func() uint64 { return 0 } // no jitter

	var tracker health.Tracker
	for _, result := range []health.Result{health.Success, health.Unreachable, health.Unreachable, health.Success} {
		change := tracker.Done(config, result)
		fmt.Println(result, tracker.State() != health.Unhealthy, config.Next(change, true, zero))
	}
	// Output:
	// success true 5s
	// unreachable true 1s
	// unreachable false 5s
	// success true 5s
}

package mesh_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestG10_OverloadKeepsMemoryBounded: what is offered is three times what the payment
// can do, for a minute, and as much of it waits as in the first seconds. Not parallel:
// the heap is the process's.
func TestG10_OverloadKeepsMemoryBounded(t *testing.T) { //nolint:paralleltest // it looks at the process
	const (
		workers, pending, offered = 10, 10, 300
		warmup, measured          = 5, 60 // seconds
		growth                    = 1 << 20
	)
	for _, protocol := range []string{"HTTP", "gRPC"} {
		t.Run(protocol, func(t *testing.T) { //nolint:paralleltest // as above
			synctest.Test(t, func(t *testing.T) {
				requests, bound := 10*offered, workers+pending // HTTP/1.1 waits for a connection
				if protocol == "gRPC" {
					requests, bound = workers, workers // one connection bears them all
				}
				g := balancingGround(t, fmt.Sprintf(`"circuitBreakers": {"thresholds": [{"maxRequests": %d, "maxConnections": %d, "maxPendingRequests": %d}]}`, requests, workers, pending), 1)
				g.counting(1, nil)[0].delay.Store(int64(100 * time.Millisecond))
				call := g.callHTTP
				if protocol == "gRPC" {
					call = g.callGRPC
				}
				if _, err := call(t.Context()); err != nil { // the configuration is there
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				var inside, refused atomic.Int64
				var most, before int64
				for second := range warmup + measured {
					if second == warmup {
						before = heap()
					}
					for range offered {
						wg.Go(func() {
							inside.Add(1)
							defer inside.Add(-1)
							if _, err := call(t.Context()); err != nil {
								refused.Add(1)
							}
						})
						synctest.Wait()
						most = max(most, inside.Load())
						time.Sleep(time.Second / offered)
					}
				}
				grown := heap() - before
				wg.Wait()
				t.Logf("%d of %d calls were refused, %d were there at once at most, the heap grew by %d bytes",
					refused.Load(), (warmup+measured)*offered, most, grown)
				if most > int64(bound) {
					t.Errorf("%d calls were there at once, want at most %d", most, bound)
				}
				if least := int64(measured * offered * 6 / 10); refused.Load() < least {
					t.Errorf("%d calls were refused, want two thirds: it is no overload", refused.Load())
				}
				if grown > growth {
					t.Errorf("the heap grew by %d bytes in %d s of overload, want at most %d", grown, measured, growth)
				}
			})
		})
	}
}

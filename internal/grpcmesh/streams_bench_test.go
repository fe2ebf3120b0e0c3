package grpcmesh_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/cputime"
)

// BenchmarkWaitingForRoom is so many callers, of which 16 may call at a time: two
// connections with eight streams each. The others wait for a call to end. What a call
// costs is to grow little with the number of those that wait.
func BenchmarkWaitingForRoom(b *testing.B) {
	for _, callers := range []int{16, 100, 1000, 4000} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			f := newFixture(b)
			f.serve(endpoint, &backend{})
			c := cluster("main", endpoint)
			c.Cluster.HTTP2.MaxStreams = 8
			c.Cluster.HostConnections[0] = 2
			c.Cluster.Limits[0] = breaker.Limits{
				MaxConnections: math.MaxUint32, MaxPendingRequests: math.MaxUint32, MaxRequests: math.MaxUint32, MaxRetries: 1,
			}
			f.configure(forward("main"), c)
			client := f.client()
			const each = 5
			start, _ := cputime.Used()
			for b.Loop() {
				var calls sync.WaitGroup
				for range callers {
					calls.Go(func() {
						for range each {
							if _, err := client.EmptyCall(b.Context(), &grpc_testing.Empty{}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				calls.Wait()
			}
			if end, ok := cputime.Used(); ok {
				b.ReportMetric(float64(end-start)/float64(b.N*callers*each), "cpu-ns/call")
			}
		})
	}
}

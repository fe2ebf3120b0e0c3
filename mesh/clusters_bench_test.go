package mesh_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/cputime"
)

// BenchmarkClusters is a destination of so many clusters with an endpoint each. The
// endpoint of one of them changes: cpu-ns/op is the processor time of that in the whole
// process, the control plane's part and a call that goes there included. The baseline
// is a destination of one cluster.
func BenchmarkClusters(b *testing.B) {
	for _, n := range []int{1, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newClustered(b, n)
			if err := w.call(); err != nil {
				b.Fatal(err)
			}
			start, ok := cputime.Used()
			changes := 0
			for b.Loop() {
				changes++
				w.change(b, changes)
			}
			if end, _ := cputime.Used(); ok {
				b.ReportMetric(float64(end-start)/float64(changes), "cpu-ns/op")
			}
		})
	}
}

// newClustered is a crowd of one endpoint, beside n-1 clusters that nobody calls.
func newClustered(b *testing.B, n int) *crowd {
	b.Helper()
	w := newCrowd(b, 1)
	var names []string
	var all []proto.Message
	for i := range n - 1 {
		name := fmt.Sprintf("c-%d", i)
		names = append(names, name)
		all = append(all, groundCluster(name), assignment(name, groundHTTP, 1, 1))
	}
	w.plane.Set(append(all, hugeRoutes(names))...)
	return w
}

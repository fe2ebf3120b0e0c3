package breaker

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// BenchmarkBreakers compares what a call pays for a breaker of its cluster, and for
// one of its cluster and one of its endpoint, with the counter that it cannot do
// without, while all cores call.
func BenchmarkBreakers(b *testing.B) {
	settings := Settings{FailureRatio: 0.5, MinRequests: 20, Window: 10 * time.Second, OpenTime: time.Second, HalfOpenProbes: 1}
	pass := func(b *testing.B, verdict outcome.Verdict, breakers ...*ErrorRate) {
		b.Helper()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				for _, breaker := range breakers {
					p, err := breaker.Allow()
					if err != nil {
						b.Error(err)
						return
					}
					p.Done(verdict)
				}
			}
		})
	}
	b.Run("the bare counter", func(b *testing.B) {
		var n atomic.Uint64
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				n.Add(1)
			}
		})
	})
	b.Run("cluster", func(b *testing.B) { pass(b, outcome.Success, NewErrorRate("c", settings, nil)) })
	b.Run("cluster and endpoint", func(b *testing.B) {
		pass(b, outcome.Success, NewErrorRate("c", settings, nil), NewErrorRate("e", settings, nil))
	})
	b.Run("cluster and endpoint, all attempts fail", func(b *testing.B) { // and nothing opens: the dearest way
		never := settings
		never.MinRequests = math.MaxUint32
		pass(b, outcome.Failure, NewErrorRate("c", never, nil), NewErrorRate("e", never, nil))
	})
	b.Run("none", func(b *testing.B) { pass(b, outcome.Success, nil, nil) })
}

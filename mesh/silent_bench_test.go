package mesh_test

import (
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// BenchmarkSilent makes calls over HTTP and gRPC while others hold connections to the
// PERMISSIVE ports over which they say nothing, or half a hello (goal G22). B/silent is
// what the process holds for each, the caller's end included; without any of them it is
// the baseline of the times.
func BenchmarkSilent(b *testing.B) {
	for _, silent := range []int{0, 2000} {
		b.Run(strconv.Itoa(silent), func(b *testing.B) {
			w := newBenchWorld(b)
			w.world.Apply(services(w.payment)) // nothing said is PERMISSIVE
			calls := []func() error{w.http("80"), w.grpc()}
			for _, call := range calls {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
			before := inUse()
			for i := range silent {
				conn, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(b.Context(), "tcp", []string{w.payment.HTTP, w.payment.GRPC}[i%2])
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				if i%4 > 1 {
					_, _ = conn.Write([]byte{0x16, 0x03, 0x01, 0x02})
				}
			}
			// All are accepted when a connection that came behind them is served.
			for _, call := range []func() error{
				httpCall(&http.Transport{DisableKeepAlives: true}, "http://"+w.payment.HTTP+"/"),
				grpcCall(b, "passthrough:///"+w.payment.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials())),
			} {
				for deadline := time.Now().Add(10 * time.Second); ; { // the listener may be STRICT for a moment
					err := call()
					if err == nil {
						break
					}
					if time.Now().After(deadline) {
						b.Fatal(err)
					}
				}
			}
			held := inUse() - before
			took := make([]time.Duration, 0, 1<<16)
			for i := 0; b.Loop(); i++ {
				begin := time.Now()
				if err := calls[i%len(calls)](); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			if silent > 0 {
				b.ReportMetric(float64(held)/float64(silent), "B/silent")
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// inUse is what the process holds of memory: the heap, and the stacks of its goroutines.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

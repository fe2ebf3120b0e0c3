package mesh_test

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

// oneCall lets each connection carry one call.
const oneCall = `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment.shop.svc.cluster.local
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: MODE}}
`

// possessions are what a process has.
type possessions struct {
	goroutines, files int
	heap              uint64
}

func own(t *testing.T) (p possessions) {
	t.Helper()
	runtime.GC()
	runtime.GC() // what finalizers let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	p.goroutines, p.heap, p.files = runtime.NumGoroutine(), m.HeapAlloc, -1
	if files, err := os.ReadDir("/proc/self/fd"); err == nil { // Linux
		p.files = len(files)
	}
	return p
}

// churn makes connections, each for one call, and compares what the process has
// before and after. It must run alone.
func churn(t *testing.T, mode string, connections int) {
	t.Helper()
	w := worldtest.New(t, "")
	p := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(p) + oneCallIn(mode))
	var opened, open, secure atomic.Int64
	h := newHistory()
	hooks := h.hooks()
	hooks.ConnOpened = func(e observe.ConnEvent) {
		if e.Direction == observe.Outbound && e.Err == nil {
			opened.Add(1)
			open.Add(1)
			if e.TLS {
				secure.Add(1)
			}
		}
	}
	hooks.ConnClosed = func(e observe.ConnEvent) {
		if e.Direction == observe.Outbound {
			open.Add(-1)
		}
	}
	load := newGoalLoad(t, w.Join("shop", "customer", nil, mesh.WithHooks(hooks)), h)
	connect := func(connections int) {
		until := opened.Load() + int64(connections)
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				for n := i; opened.Load() < until && load.failed.Load() == 0; n++ {
					switch n % 3 {
					case 0:
						load.one("HTTP/1.1", func(ctx context.Context) error { return load.post(ctx, "80") })
					case 1:
						load.one("HTTP/2", func(ctx context.Context) error { return load.post(ctx, "82") })
					default:
						load.one("gRPC", load.unary)
					}
				}
			})
		}
		all.Wait()
	}
	connect(max(connections/10, 100)) // what is made once is made
	// One gRPC connection is kept ready for the next call.
	until(t, "the connections are closed", func() bool { return open.Load() <= 1 })
	before := own(t)
	connect(connections)
	const goroutines, files, heap = 5, 2, 10 << 20
	var after possessions
	deadline := time.Now().Add(15 * time.Second)
	for {
		after = own(t)
		back := after.goroutines <= before.goroutines+goroutines && after.files <= before.files+files && after.heap <= before.heap+heap
		if back || time.Now().After(deadline) {
			break
		}
		runtime.Gosched()
	}
	if after.goroutines > before.goroutines+goroutines {
		buf := [1 << 20]byte{}
		t.Errorf("goroutines: %d before, %d after:\n%s", before.goroutines, after.goroutines, buf[:runtime.Stack(buf[:], true)])
	}
	if after.files > before.files+files {
		t.Errorf("file descriptors: %d before, %d after", before.files, after.files)
	}
	if after.heap > before.heap+heap {
		t.Errorf("heap: %d before, %d after", before.heap, after.heap)
	}
	if wantSecure := mode == "STRICT"; (secure.Load() == opened.Load()) != wantSecure {
		t.Errorf("of %d connections %d are secure", opened.Load(), secure.Load())
	}
	load.report("connections of one call")
	t.Logf("%d connections in %.1fs; goroutines %d -> %d, file descriptors %d -> %d, heap %.1f MB -> %.1f MB",
		opened.Load(), time.Since(h.begin).Seconds(), before.goroutines, after.goroutines, before.files, after.files,
		float64(before.heap)/1e6, float64(after.heap)/1e6)
}

func oneCallIn(mode string) string {
	return oneCall[:len(oneCall)-len("MODE}}\n")] + mode + "}}\n"
}

// Connections come and go in plaintext; nothing of them is left.
func TestG14_ChurnLeavesNothing(t *testing.T) { churn(t, "DISABLE", *goalConnections) } //nolint:paralleltest // it looks at the process

// Connections come and go with mutual TLS; nothing of them is left.
func TestG15_ChurnOfMutualTLSLeavesNothing(t *testing.T) { churn(t, "STRICT", *goalHandshakes) } //nolint:paralleltest // it looks at the process

package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/outcome"
)

// soakRoutes have something of everything: retries, timeouts, outlier detection,
// limits, who may call whom, header changes.
const soakRoutes = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: payment.shop.svc.cluster.local}
      headers: {request: {set: {x-round: "ROUND"}}}
    timeout: 20s
    retries: {attempts: 3, retryOn: "connect-failure,refused-stream,unavailable,reset"}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment.shop.svc.cluster.local
  trafficPolicy:
    connectionPool: {http: {maxRequestsPerConnection: 1000}, tcp: {connectTimeout: 2s}}
    outlierDetection: {consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 1s, maxEjectionPercent: 30}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// soak is a world in which something goes wrong again and again.
type soak struct {
	*fleet

	rotate *rotation
	rounds int
	forget sync.Map // of func() by *worldtest.Payment
	// killed is when an endpoint was last killed, in Unix nanoseconds.
	killed atomic.Int64
}

func (s *soak) startPayment() *worldtest.Payment {
	s.started++
	identity, forget := s.rotate.workload("payment")
	p := s.world.Payment(fmt.Sprintf("v1-s%d", s.started), map[string]string{"app": "payment"}, identity)
	s.forget.Store(p, forget)
	return p
}

// reconfigure tells the control plane of the payments, and changes the routes.
func (s *soak) reconfigure() {
	s.rounds++
	routes := bytes.ReplaceAll([]byte(soakRoutes), []byte("ROUND"), []byte(strconv.Itoa(s.rounds)))
	s.world.Apply(services(s.payments...) + string(routes))
}

// fault makes the next thing go wrong.
func (s *soak) fault(n int) string {
	oldest := s.payments[0]
	switch n % 4 {
	case 0:
		s.payments = append(slices.Delete(s.payments, 0, 1), s.startPayment())
		s.reconfigure()
		s.retire(oldest)
		return "an endpoint is replaced"
	case 1:
		s.killed.Store(time.Now().UnixNano())
		oldest.Kill()
		s.note(oldest, "killed")
		s.payments = append(slices.Delete(s.payments, 0, 1), s.startPayment())
		s.reconfigure()
		s.end(oldest)
		return "an endpoint is killed"
	case 2:
		s.world.StopControlPlane()
		s.world.StartControlPlane()
		return "the control plane is killed"
	default:
		s.reconfigure()
		return "the routes change"
	}
}

// explains reports whether an error is that of a stream, or of a call, which the death
// of an endpoint has broken: it cannot be begun anew.
func (s *soak) explains(err error) bool {
	if time.Since(time.Unix(0, s.killed.Load())) > 5*time.Second {
		return false
	}
	if failure, ok := errors.AsType[*mesh.Error](err); ok {
		return failure.Kind == outcome.Reset
	}
	return status.Code(err) == codes.Unavailable || errors.Is(err, io.ErrUnexpectedEOF)
}

// resident is how much memory the process has, in MB; 0 if nobody knows.
func resident() float64 {
	data, err := os.ReadFile("/proc/self/statm") // Linux
	if err != nil {
		return 0
	}
	var size, pages float64
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize()) / 1e6
}

// slope is by how much samples grow from one to the next, by least squares.
func slope(samples []float64) float64 {
	n := float64(len(samples))
	var sx, sy, sxx, sxy float64
	for i, y := range samples {
		x := float64(i)
		sx, sy, sxx, sxy = sx+x, sy+y, sxx+x*x, sxy+x*y
	}
	if d := n*sxx - sx*sx; d > 0 {
		return (n*sxy - sx*sy) / d
	}
	return 0
}

// A mesh is called for a long time while something goes wrong all the time: no call
// fails that no fault explains, and the memory does not grow. Clients, servers and
// control plane are in one process.
func TestG16_Soak(t *testing.T) { //nolint:paralleltest // it looks at the process
	authority := tlstest.NewCA(t)
	s := &soak{fleet: &fleet{t: t, world: worldtest.New(t, ""), history: newHistory()}, rotate: newRotation(t, authority)}
	s.ended = func(p *worldtest.Payment) {
		if forget, ok := s.forget.LoadAndDelete(p); ok {
			forget.(func())()
		}
	}
	for range 5 {
		s.payments = append(s.payments, s.startPayment())
	}
	s.reconfigure()
	customer := s.world.Join("shop", "customer", nil, mesh.WithHooks(s.history.hooks()), s.rotate.identity("customer"))
	s.load = newGoalLoad(t, customer, s.history)
	s.load.enough, s.load.rate, s.load.explains = 0, 500, s.explains
	ctx, cancel := context.WithCancel(t.Context())
	done, ended := make(chan struct{}), make(chan struct{})
	s.draining.Go(func() { s.rotate.run(ctx) })
	go func() {
		defer close(ended)
		s.load.run(done, 10)
	}()
	faults := map[string]int{}
	every, sample, over := time.NewTicker(*goalFault), time.NewTicker(time.Second), time.NewTimer(*goalSoak)
	defer every.Stop()
	defer sample.Stop()
	var memory []float64
	for n, running := 0, true; running; {
		select {
		case <-every.C:
			faults[s.fault(n)]++
			n++
		case <-sample.C:
			memory = append(memory, resident())
		case <-over.C:
			running = false
		}
	}
	close(done)
	<-ended
	cancel()
	s.draining.Wait()
	s.load.report(fmt.Sprintf("%v, faults %v, %d certificates a workload", *goalSoak, faults, s.rotate.rounds.Load()))
	const settles = 3 // the first part of the time is for pools and caches to fill
	if n := len(memory); n > settles {
		last := memory[n/settles:]
		growth := slope(last) * 3600
		t.Logf("memory %.1f MB after %d s, %.1f MB after %d s, %+.1f MB/h; goroutines and more: TestG14", last[0], n/settles, last[len(last)-1], n, growth)
		// In minutes the collector's pace is larger than what is looked for.
		if *goalSoak >= time.Hour && growth > 1 {
			t.Errorf("memory grows by %.1f MB an hour", growth)
		}
	}
}

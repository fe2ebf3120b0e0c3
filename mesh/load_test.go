package mesh_test

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

var (
	loadDuration = flag.Duration("load.duration", 8*time.Second, "how long TestLoad calls")
	loadOutage   = flag.Duration("load.outage", 2*time.Second, "how long the control plane is away in TestLoad")
	loadRate     = flag.Int("load.rate", 500, "calls a second in TestLoad")
)

const loadRoutes = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: payment.shop.svc.cluster.local}
    timeout: 10s
    retries: {attempts: 2, retryOn: "connect-failure,refused-stream,unavailable"}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// TestLoad calls payments over HTTP/1.1, HTTP/2, gRPC and gRPC streams at a
// fixed rate while everything changes: every second each workload gets a new
// certificate, endpoints are replaced one by one, and the control plane is
// killed and comes back. No call may fail. docs/reliability.md has the command
// for the long form.
func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	w := worldtest.New(t, "")
	authority := tlstest.NewCA(t)
	rotate := newRotation(t, authority)
	payments := make([]*worldtest.Payment, 0, 3)
	for _, name := range []string{"v1-a", "v1-b", "v1-c"} {
		payments = append(payments, w.Payment(name, map[string]string{"app": "payment"}, rotate.identity("payment")))
	}
	w.Apply(services(payments...) + loadRoutes)
	customer := w.Join("shop", "customer", nil, rotate.identity("customer"))

	load := newLoad(t, customer)
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	background.Go(func() { rotate.run(ctx) })
	background.Go(func() { load.run(ctx, *loadRate) })

	end := time.Now().Add(*loadDuration)
	replaced := 0
	replace := func() {
		payments = replaceOldest(t, w, payments, replaced, rotate)
		replaced++
	}
	for time.Until(end) > *loadDuration/2+*loadOutage/2 {
		replace()
	}
	before := load.total.Load()
	w.StopControlPlane()
	outage := time.NewTimer(*loadOutage)
	<-outage.C
	if load.total.Load() == before {
		t.Error("no calls ended while the control plane was away")
	}
	w.StartControlPlane()
	for time.Now().Before(end) || replaced < 2 {
		replace()
	}
	cancel()
	background.Wait()
	load.report(t, fmt.Sprintf("%d endpoints replaced, %d certificates a workload, control plane away for %v",
		replaced, rotate.rounds.Load(), *loadOutage))
}

// replaceOldest starts a payment, tells the control plane of it, and takes the
// oldest out before it ends.
func replaceOldest(t *testing.T, w *worldtest.World, payments []*worldtest.Payment, n int, rotate *rotation) []*worldtest.Payment {
	t.Helper()
	fresh := w.Payment(fmt.Sprintf("v1-r%d", n), map[string]string{"app": "payment"}, rotate.identity("payment"))
	all := append(slices.Clone(payments), fresh)
	w.Apply(services(all...) + loadRoutes)
	until(t, "the new payment is called", func() bool { return fresh.Calls.Load() > 0 })
	old := all[0]
	w.Apply(services(all[1:]...) + loadRoutes)
	// The customer has heard of it when the others got many calls and this one
	// none; time alone says little on a machine that is busy.
	others := func() (calls int64) {
		for _, p := range all[1:] {
			calls += p.Calls.Load()
		}
		return calls
	}
	last, quiet := old.Calls.Load(), others()
	until(t, "the old payment is called no more", func() bool {
		if calls := old.Calls.Load(); calls != last {
			last, quiet = calls, others()
		}
		return others() > quiet+100
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	old.Stop(ctx)
	return all[1:]
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		<-tick.C
	}
}

// rotation gives every workload a new certificate each second.
type rotation struct {
	t         *testing.T
	authority *tlstest.CA
	rounds    atomic.Int64

	mu      sync.Mutex
	sources map[*meshtls.Static]string // guarded by mu; the workload's ID
}

func newRotation(t *testing.T, authority *tlstest.CA) *rotation {
	return &rotation{t: t, authority: authority, sources: make(map[*meshtls.Static]string)}
}

func (r *rotation) identity(serviceAccount string) mesh.Option {
	option, _ := r.workload(serviceAccount)
	return option
}

// workload is identity, and how to end it.
func (r *rotation) workload(serviceAccount string) (option mesh.Option, end func()) {
	id := "spiffe://cluster.local/ns/shop/sa/" + serviceAccount
	source := meshtls.NewStatic(r.issue(id))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources[source] = id
	return mesh.WithIdentity("default", source), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.sources, source)
	}
}

func (r *rotation) issue(id string) *meshtls.Identity {
	identity, err := meshtls.NewIdentity(r.authority.Workload(r.t, id), []*x509.Certificate{r.authority.Certificate})
	if err != nil {
		r.t.Error(err)
	}
	return identity
}

// run ends with ctx.
func (r *rotation) run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.rounds.Add(1)
		r.mu.Lock()
		for source, id := range r.sources {
			source.Set(r.issue(id))
		}
		r.mu.Unlock()
	}
}

// load makes calls at a fixed rate, whether or not the earlier ones have ended.
type load struct {
	kinds []loadKind
	total atomic.Int64

	mu        sync.Mutex
	counts    map[string]int  // guarded by mu; by kind
	failures  map[string]int  // guarded by mu; by kind and error
	durations []time.Duration // guarded by mu
}

type loadKind struct {
	name string
	call func(ctx context.Context) error
}

func newLoad(t *testing.T, customer *mesh.Mesh) *load {
	client := customer.HTTPClient()
	get := func(port string) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+paymentHost+":"+port+"/charge", strings.NewReader("7"))
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", resp.StatusCode)
			}
			return nil
		}
	}
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stub := grpc_testing.NewTestServiceClient(conn)
	unary := func(ctx context.Context) error {
		_, err := stub.EmptyCall(ctx, &grpc_testing.Empty{})
		return err
	}
	stream := func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := stub.FullDuplexCall(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
				return err
			}
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("end of stream: %w", err)
		}
		return nil
	}
	return &load{
		kinds: []loadKind{
			{"HTTP/1.1", get("80")}, {"gRPC", unary}, {"HTTP/2", get("82")}, {"gRPC stream", stream},
		},
		counts: make(map[string]int), failures: make(map[string]int),
	}
}

// run ends with ctx, when the calls under way have ended.
func (l *load) run(ctx context.Context, rate int) {
	var calls sync.WaitGroup
	defer calls.Wait()
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for made := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * float64(rate)); made < due; made++ {
			kind := l.kinds[made%len(l.kinds)]
			calls.Go(func() { l.one(kind) })
		}
	}
}

func (l *load) one(kind loadKind) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	start := time.Now()
	err := kind.call(ctx)
	took := time.Since(start)
	l.total.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[kind.name]++
	l.durations = append(l.durations, took)
	if err != nil {
		l.failures[kind.name+": "+err.Error()]++
	}
}

func (l *load) report(t *testing.T, what string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := 0
	for text, n := range l.failures {
		failed += n
		t.Errorf("%d x %s", n, text)
	}
	slices.Sort(l.durations)
	at := func(q float64) time.Duration { return l.durations[int(q*float64(len(l.durations)-1))] }
	t.Logf("%s", what)
	t.Logf("calls %v", l.counts)
	t.Logf("%d calls, %d failed; p50 %v, p99 %v, max %v", len(l.durations), failed, at(0.5), at(0.99), at(1))
}

package mesh_test

import (
	"context"
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

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
)

// The goals with figures are met in three sizes: that of these defaults, that of
// .ci/run goals, and that of docs/reliability.md, which takes minutes.
var (
	goalCalls       = flag.Int64("goals.calls", 4000, "calls of TestG1 and TestG19")
	goalRate        = flag.Int("goals.rate", 0, "calls a second of TestG1 and TestG19; 0 is as many as 24 callers make")
	goalConnections = flag.Int("goals.connections", 1500, "connections of TestG14")
	goalSoak        = flag.Duration("goals.soak", 3*time.Second, "how long TestG16 lasts")
	goalFault       = flag.Duration("goals.fault", 500*time.Millisecond, "how often something goes wrong in TestG16")
	goalHandshakes  = flag.Int("goals.handshakes", 400, "handshakes of TestG15")
)

// withoutRetries leaves nothing to hide behind.
const withoutRetries = `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: payment.shop.svc.cluster.local}
    timeout: 20s
    retries: {attempts: 0}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// history is what happened to whom, for those who ask why a call failed.
type history struct {
	begin time.Time

	mu     sync.Mutex
	events map[string][]string // guarded by mu; by endpoint
	order  []string            // guarded by mu; of the endpoints, the oldest first
}

func newHistory() *history { return &history{begin: time.Now(), events: make(map[string][]string)} }

func (h *history) note(endpoint, format string, args ...any) {
	text := fmt.Sprintf("%8.3fs ", time.Since(h.begin).Seconds()) + fmt.Sprintf(format, args...)
	h.mu.Lock()
	defer h.mu.Unlock()
	events, known := h.events[endpoint]
	if !known {
		h.order = append(h.order, endpoint)
		const endpoints = 100
		if len(h.order) > endpoints {
			delete(h.events, h.order[0])
			h.order = slices.Delete(h.order, 0, 1)
		}
	}
	if len(events) == 2*kept {
		events = append(events[:0], events[kept:]...)
	}
	h.events[endpoint] = append(events, text)
}

// kept is how many events are told of an endpoint.
const kept = 25

// of is the end of the history of an endpoint.
func (h *history) of(endpoint string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.events[endpoint]
	return strings.Join(events[max(0, len(events)-kept):], "\n    ")
}

// hooks follow connections and attempts.
func (h *history) hooks() *observe.Hooks {
	return &observe.Hooks{
		ConnOpened: func(e observe.ConnEvent) { h.connection("opened", &e) },
		ConnClosed: func(e observe.ConnEvent) { h.connection("closed", &e) },
		AttemptEnded: func(ctx context.Context, a *observe.Attempt) {
			call, ok := ctx.Value(goalCallKey{}).(*goalCall)
			if !ok {
				return
			}
			call.mu.Lock()
			defer call.mu.Unlock()
			call.endpoints = append(call.endpoints, a.Endpoint)
			call.attempts = append(call.attempts, fmt.Sprintf("%8.3fs attempt %d at %s, begun %8.3fs: %v, status %d, code %d, sent %t: %v",
				a.End.Sub(h.begin).Seconds(), a.Number, a.Endpoint, a.Start.Sub(h.begin).Seconds(),
				a.Outcome.Kind, a.Outcome.Status, a.Outcome.Code, a.Outcome.Sent, a.Outcome.Err))
		},
	}
}

func (h *history) connection(what string, e *observe.ConnEvent) {
	if e.Direction == observe.Outbound {
		h.note(e.Endpoint, "connection of %s %s, after %v: %v", e.Protocol, what, e.Duration, e.Err)
	}
}

type goalCallKey struct{}

// goalCall is a call whose attempts are remembered.
type goalCall struct {
	mu        sync.Mutex
	endpoints []string // guarded by mu
	attempts  []string // guarded by mu
}

// goalLoad makes calls of every kind, each of which must succeed.
type goalLoad struct {
	t       *testing.T
	history *history
	client  *http.Client
	stub    grpc_testing.TestServiceClient

	// enough is how many calls are made at least, rate how many a second; 0 is as many
	// as the callers make.
	enough int64
	rate   int
	// explains reports whether an error is what it must be; nil knows of none.
	explains func(err error) bool

	calls     atomic.Int64
	explained atomic.Int64
	streams   atomic.Int64 // of long ones, that are open
	failed    atomic.Int64

	mu    sync.Mutex
	kinds map[string]int // guarded by mu
}

func newGoalLoad(t *testing.T, customer *mesh.Mesh, h *history) *goalLoad {
	t.Helper()
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &goalLoad{
		t: t, history: h, client: customer.HTTPClient(), stub: grpc_testing.NewTestServiceClient(conn), kinds: make(map[string]int),
		enough: *goalCalls, rate: *goalRate,
	}
}

// post sends a body, whose answer must be about it.
func (l *goalLoad) post(ctx context.Context, port string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+paymentHost+":"+port+"/charge", strings.NewReader("7"))
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"bodySHA"`) {
		return fmt.Errorf("status %d, body %q: %w", resp.StatusCode, body, err)
	}
	return nil
}

func (l *goalLoad) unary(ctx context.Context) error {
	_, err := l.stub.EmptyCall(ctx, &grpc_testing.Empty{})
	return err
}

// stream exchanges n messages, with a pause before each if there is to be one.
func (l *goalLoad) stream(ctx context.Context, n int, pause time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := l.stub.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	var tick <-chan time.Time
	if pause > 0 {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		tick = ticker.C
	}
	for i := range n {
		if tick != nil {
			<-tick
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("message %d: %w", i, err)
		}
		if _, err := s.Recv(); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
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

// one makes a call and tells all about it if it fails.
func (l *goalLoad) one(kind string, f func(ctx context.Context) error) {
	call := new(goalCall)
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), goalCallKey{}, call), 30*time.Second)
	defer cancel()
	begun := time.Since(l.history.begin)
	err := f(ctx)
	l.mu.Lock()
	l.kinds[kind]++
	l.mu.Unlock()
	if err != nil && l.explains != nil && l.explains(err) {
		l.explained.Add(1)
		return
	}
	if err == nil || l.failed.Add(1) > 10 {
		return
	}
	ended := time.Since(l.history.begin)
	call.mu.Lock()
	defer call.mu.Unlock()
	var where strings.Builder
	for _, endpoint := range slices.Compact(call.endpoints) {
		fmt.Fprintf(&where, "\n  endpoint %s:\n    %s", endpoint, l.history.of(endpoint))
	}
	cause := ""
	if failure, ok := errors.AsType[*mesh.Error](err); ok {
		cause = fmt.Sprintf(" (%v, safe to retry: %t)", failure.Kind, failure.SafeToRetry())
	}
	l.t.Errorf("%s, begun %.3fs, ended %.3fs: %v%s\n  %s%s", kind, begun.Seconds(), ended.Seconds(), err, cause,
		strings.Join(call.attempts, "\n  "), where.String())
}

// run makes calls until there were enough and done is closed, beside long streams.
func (l *goalLoad) run(done <-chan struct{}, streams int) {
	kinds := []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"HTTP/1.1", func(ctx context.Context) error { return l.post(ctx, "80") }},
		{"gRPC", l.unary},
		{"HTTP/2", func(ctx context.Context) error { return l.post(ctx, "82") }},
		{"gRPC stream", func(ctx context.Context) error { return l.stream(ctx, 3, 0) }},
	}
	over := func() bool {
		select {
		case <-done:
			return l.calls.Load() >= l.enough
		default:
			return false
		}
	}
	var all sync.WaitGroup
	for range streams {
		all.Go(func() {
			for !over() {
				l.streams.Add(1)
				l.one("long stream", func(ctx context.Context) error { return l.stream(ctx, 20, 25*time.Millisecond) })
				l.streams.Add(-1)
			}
		})
	}
	begin := time.Now()
	const callers = 24
	for range callers {
		all.Go(func() {
			for !over() {
				n := l.calls.Add(1)
				if l.rate > 0 {
					<-time.After(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(l.rate))))
				}
				kind := &kinds[n%int64(len(kinds))]
				l.one(kind.name, kind.call)
			}
		})
	}
	all.Wait()
}

// report says what was called.
func (l *goalLoad) report(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, n := range l.kinds {
		total += n
	}
	l.t.Logf("%s: %d calls %v, %d failed, %d broken by a fault, in %.1fs", what, total, l.kinds, l.failed.Load(), l.explained.Load(), time.Since(l.history.begin).Seconds())
}

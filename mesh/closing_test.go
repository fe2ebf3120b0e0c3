package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
)

// closingService does what the word says that a request has: it fails at once, begins
// an answer, or only waits, as long as somebody waits for it.
type closingService struct {
	grpc_testing.UnimplementedTestServiceServer

	mu     sync.Mutex
	served int // guarded by mu
}

func (s *closingService) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

func (s *closingService) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served++
}

func (s *closingService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.note()
	switch r.Header.Get("Do") {
	case "fail":
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "begin":
		_ = http.NewResponseController(w).Flush()
	}
	<-r.Context().Done()
}

func (s *closingService) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	s.note()
	md, _ := metadata.FromIncomingContext(ctx)
	switch fmt.Sprint(md["do"]) {
	case "[fail]":
		return nil, status.Error(codes.Unavailable, "not now")
	case "[begin]":
		_ = grpc.SendHeader(ctx, metadata.Pairs("begun", "yes"))
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s *closingService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	_, err := s.EmptyCall(stream.Context(), nil)
	return err
}

// closingRules are for a service of either HTTP version; %[1]s is its name.
const closingRules = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: shop}
spec:
  host: %[1]s
  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: %[2]s, maxConcurrentStreams: 1}, tcp: {maxConnections: 1}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: shop}
spec:
  hosts: [%[1]s]
  http:
  - retries: {attempts: 3, retryOn: "503,unavailable,reset,connect-failure", backoff: 100s}
    route: [{destination: {host: %[1]s}}]
    fault: {delay: {percentage: {value: %[3]d}, fixedDelay: 100s}}
---
`

// TestCloseEndsCallsWhereverTheyAre: whatever a call waits for when the mesh is closed,
// it ends at once, says why, and nothing is sent any more.
func TestCloseEndsCallsWhereverTheyAre(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		do    string
		calls int // at a time
		sent  int // of them
		delay int // percent
	}{
		{name: "in the pause before a retry", do: "fail", calls: 1, sent: 1},
		{name: "in an injected delay", calls: 1, delay: 100},
		{name: "at a server that says nothing", calls: 1, sent: 1},
		{name: "at a server that has begun to answer", do: "begin", calls: 1, sent: 1},
		{name: "in the line for a connection", calls: 3, sent: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := new(closingService)
				w := meshtest.New(t)
				var rules strings.Builder
				for name, upgrade := range map[string]string{"payment": "DO_NOT_UPGRADE", "ledger": "UPGRADE"} {
					w.Service(name+".shop", meshtest.HTTP(80, s), meshtest.GRPC(9090, func(r grpc.ServiceRegistrar) {
						grpc_testing.RegisterTestServiceServer(r, s)
					}))
					fmt.Fprintf(&rules, closingRules, name, upgrade, tt.delay)
				}
				w.Apply(rules.String())
				m := w.Workload("customer.shop")
				var calls sync.WaitGroup
				var mu sync.Mutex
				ends := make(map[string]time.Time)
				for name, call := range closingCalls(t, m, tt.do) {
					for range tt.calls {
						calls.Go(func() {
							err := call(t.Context())
							if e, ok := errors.AsType[*mesh.Error](err); !ok || e.Kind != outcome.Closed || !errors.Is(err, net.ErrClosed) {
								t.Errorf("%s ended with %v", name, err)
							}
							mu.Lock()
							defer mu.Unlock()
							ends[name] = time.Now()
						})
					}
				}
				time.Sleep(time.Millisecond) // a pause before a retry is drawn, from none on
				synctest.Wait()
				if n, want := s.count(), tt.sent*4; n != want {
					t.Errorf("%d calls have arrived, want %d", n, want)
				}
				closed := time.Now()
				if err := m.Close(); err != nil {
					t.Error(err)
				}
				for name, call := range closingCalls(t, m, tt.do) {
					if err := call(t.Context()); !errors.Is(err, net.ErrClosed) {
						t.Errorf("%s after Close: %v", name, err)
					}
				}
				calls.Wait()
				for name, end := range ends {
					if late := end.Sub(closed); late > 0 {
						t.Errorf("%s ended %v after Close", name, late)
					}
				}
				time.Sleep(time.Hour)
				if n, want := s.count(), tt.sent*4; n != want {
					t.Errorf("%d calls have arrived in the end, want %d", n, want)
				}
				for _, c := range w.Calls() {
					if c.Outcome.Kind != outcome.Closed {
						t.Errorf("a call was reported as %v", c)
					}
				}
			})
		})
	}
}

// closingCalls are calls of each protocol, by its name.
func closingCalls(t *testing.T, m *mesh.Mesh, do string) map[string]func(context.Context) error {
	t.Helper()
	overHTTP := func(host string) func(context.Context) error {
		return func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/", http.NoBody)
			if err != nil {
				return err
			}
			req.Header.Set("Do", do)
			resp, err := m.Transport().RoundTrip(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			return errors.Join(err, resp.Body.Close())
		}
	}
	channel := func(host string) grpc_testing.TestServiceClient {
		cc, err := grpc.NewClient("mesh:///"+host+":9090", m.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		return grpc_testing.NewTestServiceClient(cc)
	}
	unary, streams := channel("payment.shop"), channel("ledger.shop")
	return map[string]func(context.Context) error{
		"HTTP/1.1": overHTTP("payment.shop"),
		"HTTP/2":   overHTTP("ledger.shop"),
		"a unary call": func(ctx context.Context) error {
			_, err := unary.EmptyCall(metadata.AppendToOutgoingContext(ctx, "do", do), new(grpc_testing.Empty), grpc.WaitForReady(true))
			return err
		},
		"a stream": func(ctx context.Context) error {
			stream, err := streams.FullDuplexCall(metadata.AppendToOutgoingContext(ctx, "do", do))
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
	}
}

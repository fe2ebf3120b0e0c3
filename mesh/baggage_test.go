package mesh_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/otel/meshotel"
)

// contextHeaders are those in which the context of a trace travels.
var contextHeaders = []string{"traceparent", "tracestate", "baggage"}

// bank remembers with which context it was called.
type bank struct {
	mu   sync.Mutex
	sent []http.Header // guarded by mu
}

func (b *bank) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent = append(b.sent, r.Header.Clone())
}

func (b *bank) take() (sent []http.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent, b.sent = b.sent, nil
	return sent
}

// payingRPC calls the bank in each call.
type payingRPC struct {
	grpc_testing.UnimplementedTestServiceServer
	pay func(ctx context.Context) error
}

func (p *payingRPC) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, p.pay(ctx)
}

// TestV57_HostileContextsAreNotPassedOn: a stranger's trace context of any size and in
// any number of lines comes to a payment over HTTP/1.1 or gRPC, which calls the bank.
// Either it is refused with its headers, or the bank gets no more than what W3C allows.
func TestV57_HostileContextsAreNotPassedOn(t *testing.T) {
	t.Parallel()
	member := func(n int) string { return fmt.Sprintf("k%d=%s", n, strings.Repeat("v", 20)) }
	members := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = member(i)
		}
		return strings.Join(all, ",")
	}
	lines := func(n int) (all []string) {
		for i := range n {
			all = append(all, member(i))
		}
		return all
	}
	for _, tt := range []struct {
		name, header string
		values       []string
		refused      bool // with its headers, over either protocol
	}{
		{"a plain baggage", "baggage", []string{"tenant=blue"}, false},
		{"1 MB of baggage", "baggage", []string{"k=" + strings.Repeat("a", 1<<20)}, true},
		{"10,000 members", "baggage", []string{members(10_000)}, true},
		{"as many members as fit into the headers", "baggage", []string{members(1500)}, false},
		{"a member in each of 80 lines", "baggage", lines(80), false},
		{"200 members in each of 8 lines", "baggage", []string{members(200), members(200), members(200), members(200), members(200), members(200), members(200), members(200)}, false},
		{"50 kB of tracestate", "tracestate", []string{"v=" + strings.Repeat("a", 50<<10)}, false},
		{"a traceparent that is none", "traceparent", []string{strings.Repeat("0-", 1000)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				telemetry, err := meshotel.New(meshotel.WithTracerProvider(sdktrace.NewTracerProvider()))
				if err != nil {
					t.Fatal(err)
				}
				defer telemetry.Close()
				w := meshtest.New(t)
				hooks := meshtest.Hooks(telemetry.Hooks())
				called := &bank{}
				w.Service("bank.shop", meshtest.HTTP(80, called))
				client := w.Workload("payment.shop", hooks)
				pay := func(ctx context.Context) error { return callBank(ctx, client) }
				w.Service("payment.shop", hooks,
					meshtest.HTTP(80, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						if err := pay(r.Context()); err != nil {
							http.Error(rw, err.Error(), http.StatusInternalServerError)
						}
					})),
					meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, &payingRPC{pay: pay}) }))
				for protocol, call := range map[string]func(*testing.T, *meshtest.World, string, []string) error{"HTTP": strangeHTTP, "gRPC": strangeGRPC} {
					err := call(t, w, tt.header, tt.values)
					sent := called.take()
					if tt.refused {
						if err == nil || len(sent) > 0 {
							t.Errorf("%s: %v, and the bank was called %d times", protocol, err, len(sent))
						}
						continue
					}
					if err != nil || len(sent) != 1 {
						t.Fatalf("%s: %v, and the bank was called %d times", protocol, err, len(sent))
					}
					for _, name := range contextHeaders {
						if size := len(strings.Join(sent[0].Values(name), ",")); size > 8192 {
							t.Errorf("%s: %d bytes of %s are passed on", protocol, size, name)
						}
					}
					if got := sent[0].Get("Baggage"); tt.name == "a plain baggage" && got != "tenant=blue" {
						t.Errorf("%s: the baggage is %q", protocol, got)
					}
				}
			})
		})
	}
}

func callBank(ctx context.Context, m *mesh.Mesh) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bank.shop.svc.cluster.local/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := m.Transport().RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// strangeHTTP calls the payment from outside the mesh.
func strangeHTTP(t *testing.T, w *meshtest.World, name string, values []string) error {
	t.Helper()
	transport := &http.Transport{DialContext: w.DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://payment.shop:80/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header[http.CanonicalHeaderKey(name)] = values
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", resp.Status, text, err)
	}
	return nil
}

// strangeGRPC is strangeHTTP for gRPC.
func strangeGRPC(t *testing.T, w *meshtest.World, name string, values []string) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///payment.shop:9090", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return w.DialContext(ctx, "tcp", address) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	md := metadata.MD{}
	md.Set(name, values...)
	_, err = grpc_testing.NewTestServiceClient(conn).EmptyCall(metadata.NewOutgoingContext(ctx, md), &grpc_testing.Empty{})
	return err
}

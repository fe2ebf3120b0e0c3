package grpcmesh_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/internal/httpmesh"
)

// both is a service that answers HTTP and gRPC at one address, over HTTP/2. It
// fails on demand.
type both struct {
	*backend

	failing atomic.Bool
	checks  atomic.Int64
	plain   atomic.Int64
}

// serveBoth starts a server of both protocols.
func (f *fixture) serveBoth(address string) *both {
	f.tb.Helper()
	b := &both{backend: &backend{name: address}}
	b.before = func(context.Context, int64) error {
		if b.failing.Load() {
			return status.Error(codes.Internal, "out of order")
		}
		return nil
	}
	server := grpc.NewServer()
	grpc_testing.RegisterTestServiceServer(server, b)
	ln, err := f.network.Listen(address)
	if err != nil {
		f.tb.Fatal(err)
	}
	s := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Content-Type") == "application/grpc":
			server.ServeHTTP(w, r)
			return
		case r.URL.Path == "/healthz":
			b.checks.Add(1)
		default:
			b.plain.Add(1)
		}
		if b.failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = s.Serve(ln)
	}()
	f.tb.Cleanup(func() {
		_ = s.Close()
		<-done
		server.Stop()
		time.Sleep(time.Second) // net/http's server lingers on connections
	})
	return b
}

// clients calls one target over HTTP and over gRPC.
type clients struct {
	http *http.Client
	grpc grpc_testing.TestServiceClient
}

func (f *fixture) clients() *clients {
	f.tb.Helper()
	transport := httpmesh.NewTransport(f.outbound, nil)
	return &clients{http: &http.Client{Transport: transport}, grpc: f.client()}
}

func (c *clients) callHTTP(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target+"/charge", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	_ = resp.Body.Close()
	return err
}

func (c *clients) callGRPC(ctx context.Context) error {
	_, err := c.grpc.EmptyCall(ctx, &grpc_testing.Empty{})
	return err
}

func TestHTTPAndGRPCShareTheHealthOfAnEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		a, b := f.serveBoth("10.0.0.1:9090"), f.serveBoth("10.0.0.2:9090")
		c := cluster("main", "10.0.0.1:9090", "10.0.0.2:9090")
		c.Cluster.HealthCheck = &health.Config{
			Timeout: time.Second, Interval: time.Second, NoTrafficInterval: time.Second,
			HTTP: &health.HTTP{Path: "/healthz", Codec: health.HTTP2},
		}
		f.configure(forward("main"), c)
		calls := f.clients()
		ctx := withTimeout(t)
		both := func(want string) {
			t.Helper()
			a.calls.Store(0)
			a.plain.Store(0)
			for range 10 {
				if err := calls.callHTTP(ctx); err != nil {
					t.Errorf("HTTP: %v", err)
				}
			}
			for range 10 {
				if err := calls.callGRPC(ctx); err != nil {
					t.Errorf("gRPC: %v", err)
				}
			}
			if got := fmt.Sprint(a.plain.Load(), " ", a.calls.Load()); got != want {
				t.Errorf("calls of HTTP and of gRPC at the first endpoint: %s, want %s", got, want)
			}
		}
		both("5 5")
		a.failing.Store(true)
		time.Sleep(1500 * time.Millisecond)
		both("0 0")
		a.failing.Store(false)
		time.Sleep(time.Second)
		both("5 5")
		// One check a second, whatever the number of protocols and of channels.
		f.client()
		a.checks.Store(0)
		b.checks.Store(0)
		time.Sleep(10 * time.Second)
		if a.checks.Load() != 10 || b.checks.Load() != 10 {
			t.Errorf("%d and %d checks in ten seconds", a.checks.Load(), b.checks.Load())
		}
	})
}

func TestAGRPCAnswerMayAskToBeLeftAlone(t *testing.T) {
	t.Parallel()
	answers := map[string]func(context.Context) error{
		"headers": func(ctx context.Context) error {
			return grpc.SetHeader(ctx, metadata.Pairs("x-envoy-immediate-health-check-fail", "true"))
		},
		"trailers only": func(ctx context.Context) error {
			if err := grpc.SetTrailer(ctx, metadata.Pairs("x-envoy-immediate-health-check-fail", "true")); err != nil {
				return err
			}
			return status.Error(codes.Aborted, "leave me alone")
		},
	}
	calls := map[string]func(*testing.T, grpc_testing.TestServiceClient){
		"unary": func(t *testing.T, client grpc_testing.TestServiceClient) {
			_, _ = client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		},
		"a stream": func(t *testing.T, client grpc_testing.TestServiceClient) {
			stream, err := client.FullDuplexCall(withTimeout(t))
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte("once")}})
			_ = stream.CloseSend()
			for err == nil {
				_, err = stream.Recv()
			}
		},
	}
	for name, answer := range answers {
		for kind, call := range calls {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					a, b := f.serveBoth("10.0.0.1:9090"), f.serveBoth("10.0.0.2:9090")
					a.before = func(ctx context.Context, _ int64) error { return answer(ctx) }
					c := cluster("main", "10.0.0.1:9090", "10.0.0.2:9090")
					c.Cluster.HealthCheck = &health.Config{
						Timeout: time.Second, Interval: time.Minute, NoTrafficInterval: time.Minute, TCP: &health.TCP{},
					}
					f.configure(forward("main"), c)
					client := f.client()
					for range 20 {
						call(t, client) // one of them fails
					}
					if a.calls.Load() != 1 || b.calls.Load() != 19 {
						t.Errorf("%d and %d calls, want 1 and 19", a.calls.Load(), b.calls.Load())
					}
				})
			})
		}
	}
}

package grpcmesh_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// plainClient is a gRPC client outside the mesh.
func (f *fixture) plainClient(address string) grpc_testing.TestServiceClient {
	f.tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return f.network.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		f.tb.Fatal(err)
	}
	f.tb.Cleanup(func() { conn.Close() })
	return grpc_testing.NewTestServiceClient(conn)
}

func TestAListenerThatIsNotTheMeshsIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ln, err := f.network.Listen(endpoint) // not through Listeners
		if err != nil {
			t.Fatal(err)
		}
		b := &backend{}
		server := grpc.NewServer(f.adapter.ServerOptions()...)
		grpc_testing.RegisterTestServiceServer(server, b)
		go func() { _ = server.Serve(ln) }() // until Stop
		defer server.Stop()
		_, err = f.plainClient(endpoint).EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if status.Code(err) != codes.Unavailable || b.calls.Load() != 0 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}

func TestPlaintextIsRefusedByAStrictListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		b := &backend{}
		f.serveAs(strict(endpoint), b)
		_, err := f.plainClient(endpoint).EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if status.Code(err) != codes.Unavailable || b.calls.Load() != 0 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
		synctest.Wait()
		if len(f.seen.refused) == 0 {
			t.Error("nobody was told of the refusal")
		}
	})
}

// TestBA13_AChangeOfPolicyActsOnOpenConnections: from PERMISSIVE to STRICT.
func TestBA13_AChangeOfPolicyActsOnOpenConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.identify(paymentID)
		b := &backend{}
		f.serveAs(plaintext(endpoint), b)
		client := f.plainClient(endpoint)
		if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		f.source.setInbound(endpoint, strict(endpoint))
		synctest.Wait()
		_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unavailable || b.calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}

// TestAClientThatNegotiatedAnotherProtocolIsRefused: gRPC is HTTP/2.
func TestAClientThatNegotiatedAnotherProtocolIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ca := f.identify(paymentID)
		f.serveAs(strict(endpoint), &backend{})
		raw, err := f.network.DialContext(t.Context(), "tcp", endpoint)
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
			Certificates: []tls.Certificate{ca.Workload(t, paymentID)},
		})
		defer conn.Close()
		if err := conn.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
	})
}

func TestRoutesAndFiltersOfAListener(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	filter := func(fault *discovery.Fault) func(*discovery.Inbound) {
		return func(in *discovery.Inbound) {
			in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "fault", Config: fault}}
		}
	}
	tests := []struct {
		name string
		edit func(*discovery.Inbound)
		want codes.Code
		text string
		took time.Duration
	}{
		{"no route", func(in *discovery.Inbound) {
			in.Chains[0].Routes.VirtualHosts[0].Routes[0].Match.Path = discovery.PathMatch{Value: "/other"}
		}, codes.Unavailable, "no route", 0},
		{"no virtual host", func(in *discovery.Inbound) {
			in.Chains[0].Routes.VirtualHosts[0].Domains = []string{"other"}
		}, codes.Unavailable, "no route", 0},
		{"a route to elsewhere", func(in *discovery.Inbound) {
			in.Chains[0].Routes.VirtualHosts[0].Routes[0] = forward("main")
		}, codes.Unavailable, "the route leads to another process", 0},
		{"a direct response", func(in *discovery.Inbound) {
			in.Chains[0].Routes.VirtualHosts[0].Routes[0] = &discovery.Route{
				Direct: &discovery.DirectResponse{Status: 403, Body: []byte("go away")},
			}
		}, codes.PermissionDenied, "go away", 0},
		{"an abort", filter(&discovery.Fault{Abort: &discovery.FaultAbort{GRPCStatus: 8, IsGRPC: true, PerMillion: million}}), codes.ResourceExhausted, "fault filter abort", 0},
		{"a delay", filter(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: million}}), codes.OK, "", time.Second},
		{"a delay longer than the caller waits", filter(&discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: million}}), codes.DeadlineExceeded, "", callTimeout},
		{"max_stream_duration", func(in *discovery.Inbound) {
			in.Chains[0].MaxStreamDuration = 3 * time.Second
			in.Chains[0].Routes.VirtualHosts[0].Routes[0].Name = "hang"
		}, codes.DeadlineExceeded, "", 3 * time.Second},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					in := plaintext(endpoint)
					tt.edit(in)
					b := &backend{}
					if in.Chains[0].Routes.VirtualHosts[0].Routes[0].Name == "hang" {
						b.before = hang
					}
					f.serveAs(in, b)
					f.forwardTo(endpoint)
					client := f.client()
					start := time.Now()
					err := kind.call(withTimeout(t), client)
					if status.Code(err) != tt.want || err != nil && !strings.Contains(err.Error(), tt.text) || time.Since(start) != tt.took {
						t.Errorf("%v after %v", err, time.Since(start))
					}
					if (b.calls.Load() > 0) != (tt.want == codes.OK || b.before != nil) {
						t.Errorf("%d calls reached the application", b.calls.Load())
					}
				})
			})
		}
	}
}

// TestV63_AHandlerThatPanicsIsCountedOut. As without the mesh, a panic ends the
// process unless the application recovers it, above the mesh or below.
func TestV63_AHandlerThatPanicsIsCountedOut(t *testing.T) {
	t.Parallel()
	recovered := func(err *error) {
		if cause := recover(); cause != nil {
			*err = status.Error(codes.Internal, "recovered")
		}
	}
	unary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
		defer recovered(&err)
		return next(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		defer recovered(&err)
		return next(srv, ss)
	}
	recovery := []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
	for _, above := range []bool{true, false} {
		for _, kind := range callKinds {
			name := "recovered below the mesh"
			if above {
				name = "recovered above the mesh"
			}
			t.Run(name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{before: func(context.Context, int64) error { panic("scripted panic") }}
					if above {
						f.above = recovery
						f.serve(endpoint, b)
					} else {
						f.serve(endpoint, b, recovery...)
					}
					f.forwardTo(endpoint)
					client := f.client()
					for range 3 {
						if err := kind.call(withTimeout(t), client); status.Code(err) != codes.Internal {
							t.Errorf("%v", err)
						}
					}
					synctest.Wait()
					want := codes.Internal
					if above {
						want = codes.Unknown // the mesh saw the panic pass
					}
					calls := f.seen.ended(observe.Inbound)
					if len(calls) != 3 || codes.Code(calls[0].Outcome.Code) != want || calls[0].Outcome.Kind != outcome.Response {
						t.Errorf("observed %+v", calls)
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if _, err := f.listeners.Drain(ctx, inbound.DrainPolicy{Listen: -1, Quiet: -1}); err != nil {
						t.Errorf("calls are still counted: %v", err)
					}
				})
			})
		}
	}
}

func TestDrainWaitsForCallsOfEveryKind(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.serve(endpoint, &backend{before: func(context.Context, int64) error {
					time.Sleep(time.Second)
					return nil
				}})
				f.forwardTo(endpoint)
				client := f.client()
				done := make(chan error, 1)
				go func() { done <- kind.call(withTimeout(t), client) }()
				synctest.Wait()
				start := time.Now()
				if _, err := f.listeners.Drain(t.Context(), inbound.DrainPolicy{Listen: -1, Quiet: -1, Immediate: true}); err != nil {
					t.Error(err)
				}
				if got := time.Since(start); got != time.Second {
					t.Errorf("drained after %v", got)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestAResponseThatFailsKeepsItsTrailersOnlyForm, in spite of operations on
// response headers: otherwise clients of plain gRPC would not try again.
func TestAResponseThatFailsKeepsItsTrailersOnlyForm(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{before: failFirst(1, codes.Unavailable)}
				f.serveAs(plaintext(endpoint, &discovery.Route{Local: true, Headers: discovery.HeaderMutations{
					ResponseAdd: []discovery.HeaderValue{{Name: "x-a", Value: "1"}},
				}}), b)
				conn, err := grpc.NewClient("passthrough:///"+endpoint,
					grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
						return f.network.DialContext(ctx, "tcp", address)
					}),
					grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{}],"retryPolicy":{
						"maxAttempts":2,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := kind.call(withTimeout(t), grpc_testing.NewTestServiceClient(conn)); err != nil || b.calls.Load() != 2 {
					t.Errorf("%v after %d calls", err, b.calls.Load())
				}
			})
		})
	}
}

// TestHeadersThatTheApplicationSendsEarlyAreOperatedOn.
func TestHeadersThatTheApplicationSendsEarlyAreOperatedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{duplex: func(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
			if err := stream.SetHeader(metadata.Pairs("x-secret", "s", "x-a", "1")); err != nil {
				return err
			}
			if err := stream.SendHeader(metadata.Pairs("x-b", "2")); err != nil {
				return err
			}
			if err := stream.SendHeader(metadata.Pairs("x-c", "3")); err == nil {
				t.Error("headers were sent twice")
			}
			if err := stream.SetHeader(metadata.Pairs("x-c", "3")); err == nil {
				t.Error("headers were set after they were sent")
			}
			<-stream.Context().Done()
			return nil
		}}
		f.serveAs(plaintext(endpoint, &discovery.Route{Local: true, Headers: discovery.HeaderMutations{
			ResponseRemove: []string{"x-secret"},
		}}), b)
		f.forwardTo(endpoint)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := f.client().FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		md, err := stream.Header()
		if err != nil || len(md.Get("x-secret")) != 0 || len(md.Get("x-a")) != 1 || len(md.Get("x-b")) != 1 || len(md.Get("x-c")) != 0 {
			t.Errorf("%v, %v", md, err)
		}
		// The call ends after its context has: until then it counts.
		cancel()
		synctest.Wait()
	})
}

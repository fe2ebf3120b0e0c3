package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const endpoint = "10.0.0.1:9090"

// identify gives the fixture an identity from a new CA.
func (f *fixture) identify(id string) *tlstest.CA {
	f.tb.Helper()
	ca := tlstest.NewCA(f.tb)
	f.identities["default"] = meshtls.NewStatic(newIdentity(f.tb, ca, id))
	return ca
}

func newIdentity(tb testing.TB, ca *tlstest.CA, id string) *meshtls.Identity {
	tb.Helper()
	identity, err := meshtls.NewIdentity(ca.Workload(tb, id), roots(ca))
	if err != nil {
		tb.Fatal(err)
	}
	return identity
}

const paymentID = "spiffe://cluster.local/ns/shop/sa/payment"

// transports are the two ways to one payment. Each starts the server and
// configures the target.
var transports = []struct {
	name  string
	start func(f *fixture, b grpc_testing.TestServiceServer, options ...grpc.ServerOption) *server
}{
	{"in plaintext", func(f *fixture, b grpc_testing.TestServiceServer, options ...grpc.ServerOption) *server {
		f.forwardTo(endpoint)
		return f.serve(endpoint, b, options...)
	}},
	{"with mutual TLS", func(f *fixture, b grpc_testing.TestServiceServer, options ...grpc.ServerOption) *server {
		f.identify(paymentID)
		f.configure(forward("main"), mutual(cluster("main", endpoint), paymentID))
		return f.serveAs(strict(endpoint), b, options...)
	}},
}

// TestS38_InteropCases runs grpc-go's own interoperability client against its
// own server, through the mesh on both sides. The cases that need a cloud's
// credentials are left out. A case that fails ends the program with its reason.
func TestS38_InteropCases(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		run  func(ctx context.Context, cc *grpc.ClientConn, client grpc_testing.TestServiceClient)
	}{
		{"empty_unary", testService(interop.DoEmptyUnaryCall)},
		{"large_unary", testService(interop.DoLargeUnaryCall)},
		{"client_streaming", testService(interop.DoClientStreaming)},
		{"server_streaming", testService(interop.DoServerStreaming)},
		{"ping_pong", testService(interop.DoPingPong)},
		{"empty_stream", testService(interop.DoEmptyStream)},
		{"timeout_on_sleeping_server", testService(interop.DoTimeoutOnSleepingServer)},
		{"cancel_after_begin", testService(interop.DoCancelAfterBegin)},
		{"cancel_after_first_response", testService(interop.DoCancelAfterFirstResponse)},
		{"status_code_and_message", testService(interop.DoStatusCodeAndMessage)},
		{"special_status_message", testService(interop.DoSpecialStatusMessage)},
		{"custom_metadata", testService(interop.DoCustomMetadata)},
		{"unimplemented_method", func(ctx context.Context, cc *grpc.ClientConn, _ grpc_testing.TestServiceClient) {
			interop.DoUnimplementedMethod(ctx, cc)
		}},
		{"unimplemented_service", func(ctx context.Context, cc *grpc.ClientConn, _ grpc_testing.TestServiceClient) {
			interop.DoUnimplementedService(ctx, grpc_testing.NewUnimplementedServiceClient(cc))
		}},
	}
	for _, transport := range transports {
		for _, c := range cases {
			t.Run(c.name+" "+transport.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					transport.start(f, interop.NewTestServer())
					cc := f.channel()
					c.run(withTimeout(t), cc, grpc_testing.NewTestServiceClient(cc))
				})
			})
		}
	}
}

func testService(f func(context.Context, grpc_testing.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn, grpc_testing.TestServiceClient) {
	return func(ctx context.Context, _ *grpc.ClientConn, client grpc_testing.TestServiceClient) { f(ctx, client) }
}

// TestEveryKindOfCallIsReportedOnBothSides makes one call of each kind and looks
// at what observers are told.
func TestEveryKindOfCallIsReportedOnBothSides(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name      string
		method    string
		streaming bool
		call      func(ctx context.Context, client grpc_testing.TestServiceClient)
	}{
		{"unary", "EmptyCall", false, testCall(interop.DoEmptyUnaryCall)},
		{"client streaming", "StreamingInputCall", true, testCall(interop.DoClientStreaming)},
		{"server streaming", "StreamingOutputCall", true, testCall(interop.DoServerStreaming)},
		{"bidirectional", "FullDuplexCall", true, testCall(interop.DoPingPong)},
	}
	for _, transport := range transports {
		for _, kind := range kinds {
			t.Run(kind.name+" "+transport.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					transport.start(f, interop.NewTestServer())
					kind.call(withTimeout(t), f.client())
					synctest.Wait()
					isTLS := f.identities["default"] != nil
					out, in, tries := f.seen.ended(observe.Outbound), f.seen.ended(observe.Inbound), f.seen.tried()
					if len(out) != 1 || len(in) != 1 || len(tries) != 1 {
						t.Fatalf("%d calls out, %d in, %d attempts", len(out), len(in), len(tries))
					}
					const path = "/grpc.testing.TestService/"
					wantOut := observe.Call{
						Direction: observe.Outbound, Protocol: observe.GRPC, Method: path + kind.method, Host: target, Scheme: "http",
						Path: path + kind.method, Streaming: kind.streaming, Target: target, Route: "route", Cluster: "main", Attempts: 1,
						Outcome: outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true},
					}
					checkCall(t, "outbound", &out[0], &wantOut)
					wantIn := observe.Call{
						Direction: observe.Inbound, Protocol: observe.GRPC, Method: path + kind.method, Host: target, Scheme: "http",
						Path: path + kind.method, Streaming: kind.streaming, Target: endpoint, Route: "in", Attempts: 1,
						PeerAddress: "mem-client:1", Outcome: outcome.Outcome{Kind: outcome.Response, GRPC: true, Sent: true},
					}
					if isTLS {
						wantIn.Scheme, wantIn.PeerID = "https", paymentID
					}
					checkCall(t, "inbound", &in[0], &wantIn)
					if a := tries[0]; a.Number != 1 || a.Cluster != "main" || a.Endpoint != endpoint || a.Outcome.Kind != outcome.Response {
						t.Errorf("attempt %+v", a)
					}
				})
			})
		}
	}
}

func testCall(f func(context.Context, grpc_testing.TestServiceClient, ...grpc.CallOption)) func(context.Context, grpc_testing.TestServiceClient) {
	return func(ctx context.Context, client grpc_testing.TestServiceClient) { f(ctx, client) }
}

// checkCall compares what can be foreseen of a call.
func checkCall(t *testing.T, side string, got, want *observe.Call) {
	t.Helper()
	if got.Start.IsZero() || got.End.Before(got.Start) {
		t.Errorf("%s: from %v to %v", side, got.Start, got.End)
	}
	g, w := *got, *want
	g.Headers, g.State, g.Start, g.End = nil, nil, w.Start, w.End
	if g.Outcome.Kind != w.Outcome.Kind || g.Outcome.Code != w.Outcome.Code || g.Outcome.GRPC != w.Outcome.GRPC {
		t.Errorf("%s: outcome %+v, want %+v", side, g.Outcome, w.Outcome)
	}
	g.Outcome, w.Outcome = outcome.Outcome{}, outcome.Outcome{}
	if g.Direction != w.Direction || g.Protocol != w.Protocol || g.Method != w.Method || g.Host != w.Host || g.Scheme != w.Scheme ||
		g.Path != w.Path || g.PeerID != w.PeerID || g.PeerAddress != w.PeerAddress || g.Streaming != w.Streaming ||
		g.Target != w.Target || g.Route != w.Route || g.Cluster != w.Cluster || g.Attempts != w.Attempts {
		t.Errorf("%s:\n got %+v\nwant %+v", side, g, w)
	}
}

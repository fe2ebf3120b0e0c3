package grpcmesh_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/retry"
)

// telemetry reports metrics to an SDK, and spans of which none is sampled.
func telemetry(tb testing.TB) *observe.Hooks {
	tb.Helper()
	t, err := meshotel.New(
		meshotel.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))),
		meshotel.WithTracerProvider(trace.NewTracerProvider(trace.WithSampler(trace.NeverSample()))),
	)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = t.Close() })
	return t.Hooks()
}

// quick answers at once.
type quick struct {
	grpc_testing.UnimplementedTestServiceServer
}

var nothing = new(grpc_testing.Empty)

func (quick) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return nothing, nil
}

// benchLimit is how long a call may take: the route says so, or the caller.
const benchLimit = 2 * time.Second

// pair is a client and a server on loopback, each of the mesh or not.
func pair(tb testing.TB, hooks *observe.Hooks, meshClient, meshServer bool) grpc_testing.TestServiceClient {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := ln.Addr().String()
	source := newSource()
	route := forward("main")
	route.Forward.Timeout = benchLimit
	route.Forward.Retry = &retry.Policy{MaxRetries: 2, On: retry.OnConnectFailure | retry.OnGRPCUnavailable, AvoidPreviousHosts: true}
	to := cluster("main", address)
	to.Cluster.Breaker = &breaker.Settings{
		FailureRatio: 0.5, MinRequests: 20, Window: 10 * time.Second, OpenTime: 5 * time.Second, HalfOpenProbes: 3,
	}
	(&fixture{source: source}).configure(route, to)
	source.setInbound(address, plaintext(address))
	upstreams := upstream.NewManager(upstream.Options{Dial: new(net.Dialer).DialContext, Hooks: hooks})
	outbound := pipeline.NewOutbound(source, upstreams, hooks)
	listeners := inbound.New(inbound.Options{Source: source, Hooks: hooks})
	adapter := grpcmesh.New(grpcmesh.Options{Outbound: outbound, Listeners: listeners, Hooks: hooks, Dial: new(net.Dialer).DialContext})
	tb.Cleanup(func() {
		if err := errors.Join(adapter.Close(), listeners.Close()); err != nil {
			tb.Error(err)
		}
		outbound.Close()
		upstreams.Close()
	})

	var serverOptions []grpc.ServerOption
	if meshServer {
		if ln, err = listeners.Listen(tb.Context(), ln); err != nil {
			tb.Fatal(err)
		}
		serverOptions = adapter.ServerOptions()
	}
	server := grpc.NewServer(serverOptions...)
	grpc_testing.RegisterTestServiceServer(server, quick{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	tb.Cleanup(func() {
		server.Stop()
		<-done
	})

	uri, dialOptions := "passthrough:///"+address, []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if meshClient {
		uri, dialOptions = "mesh:///"+target, adapter.DialOptions()
	}
	cc, err := grpc.NewClient(uri, dialOptions...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return grpc_testing.NewTestServiceClient(cc)
}

// BenchmarkUnary is a unary call over loopback in plaintext, client and server
// together, beside the same without the mesh.
func BenchmarkUnary(b *testing.B) {
	off := func(testing.TB) *observe.Hooks { return &observe.Hooks{} }
	cases := []struct {
		name           string
		hooks          func(testing.TB) *observe.Hooks
		client, server bool
		deadline       bool // the caller sets what the route sets otherwise
	}{
		{name: "without the mesh", hooks: off},
		{name: "without the mesh, with a timeout", hooks: off, deadline: true},
		{name: "client", hooks: off, client: true},
		{name: "server", hooks: off, server: true, deadline: true},
		{name: "both", hooks: off, client: true, server: true},
		{name: "both, telemetry on, not sampled", hooks: telemetry, client: true, server: true},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			client := pair(b, c.hooks(b), c.client, c.server)
			cputime.Loop(b, func() { callOnce(b, client, c.deadline) })
		})
	}
}

func callOnce(tb testing.TB, client grpc_testing.TestServiceClient, deadline bool) {
	ctx, cancel := context.Background(), func() {}
	if deadline {
		ctx, cancel = context.WithTimeout(ctx, benchLimit)
	}
	defer cancel()
	if _, err := client.EmptyCall(ctx, nothing); err != nil {
		tb.Fatal(err)
	}
}

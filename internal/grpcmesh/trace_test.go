package grpcmesh_test

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/retry"
)

// Three hops, of which the last has to be tried twice: one trace, a span for each
// attempt, and each hop below the attempt that reached it.
func TestS39_OneTraceOverThreeHopsOfGRPC(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				spans := tracetest.NewSpanRecorder()
				telemetry, err := meshotel.New(meshotel.WithTracerProvider(sdktrace.NewTracerProvider(
					sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithSpanProcessor(spans))))
				if err != nil {
					t.Fatal(err)
				}
				defer telemetry.Close()
				f := newFixture(t, func(o *grpcmesh.Options) { *o.Hooks = *telemetry.Hooks() })
				var client grpc_testing.TestServiceClient
				call := func(ctx context.Context, hop int) error {
					return kind.call(metadata.AppendToOutgoingContext(ctx, "x-hop", strconv.Itoa(hop)), client)
				}
				const last = 3
				routes := make([]*discovery.Route, 0, last)
				clusters := make([]discovery.ClusterResult, 0, last)
				for hop := 1; hop <= last; hop++ {
					name, address := "hop"+strconv.Itoa(hop), "10.0.0."+strconv.Itoa(hop)+":80"
					f.serveAs(plaintext(address), &backend{before: func(ctx context.Context, n int64) error {
						switch {
						case hop < last:
							return call(ctx, hop+1)
						case n == 1:
							return status.Error(codes.Unavailable, "scripted failure")
						}
						return nil
					}})
					route := forward(name)
					route.Match.Headers = []discovery.HeaderMatch{{Name: "x-hop", String: discovery.StringMatch{Value: strconv.Itoa(hop)}}}
					route.Forward.Retry = &retry.Policy{MaxRetries: 1, On: retry.OnGRPCUnavailable}
					routes, clusters = append(routes, route), append(clusters, cluster(name, address))
				}
				f.source.setTarget(target, &discovery.Target{
					Name: target, Listener: &discovery.APIListener{Name: target},
					Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
						Name: target, Domains: []string{"*"}, Routes: routes,
					}}},
					Clusters: clustersByName(clusters),
				})
				client = f.client()
				if err := call(withTimeout(t), 1); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				hop := "internal client server "
				calltest.Trace(t, spans.Ended(),
					"internal", "internal client", "internal client server",
					hop+"internal", hop+"internal client", hop+"internal client server",
					hop+hop+"internal", hop+hop+"internal client", hop+hop+"internal client",
					hop+hop+"internal client server", hop+hop+"internal client server")
			})
		})
	}
}

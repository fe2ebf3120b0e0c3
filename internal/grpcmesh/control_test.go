package grpcmesh_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/retry"
)

func TestBR19_TheApplicationControlsItsCall(t *testing.T) {
	t.Parallel()
	controls := map[string]func(context.Context) context.Context{
		"by metadata": func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "x-envoy-retry-grpc-on", "unavailable", "x-envoy-max-retries", "2")
		},
		"by options": func(ctx context.Context) context.Context {
			return pipeline.WithOptions(ctx, pipeline.CallOptions{RetryOn: retry.OnGRPCUnavailable, MaxRetries: new(uint32(2))})
		},
	}
	for name, control := range controls {
		for _, kind := range callKinds {
			t.Run(kind.name+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					var mu sync.Mutex
					var counts []string
					b := &backend{before: func(ctx context.Context, _ int64) error {
						mu.Lock()
						defer mu.Unlock()
						counts = append(counts, incoming(ctx, "x-envoy-attempt-count")...)
						return status.Error(codes.Unavailable, "scripted")
					}}
					f.serve("10.0.0.1:80", b)
					r := retrying(4, retry.OnGRPCInternal)
					r.Forward.AttemptCount = true
					f.configure(r, cluster("main", "10.0.0.1:80"))
					client := f.client()
					if err := kind.call(control(withTimeout(t)), client); status.Code(err) != codes.Unavailable {
						t.Errorf("got %v", err)
					}
					if !slices.Equal(counts, []string{"1", "2", "3"}) {
						t.Errorf("the attempts said that they were %q", counts)
					}
				})
			})
		}
	}
}

func TestBR19_TheCallerIsToldHowManyAttemptsThereWere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve("10.0.0.1:80", &backend{before: failFirst(2, codes.Unavailable)})
		r := retrying(4, retry.OnGRPCUnavailable)
		r.Forward.AttemptCountInResponse = true
		f.configure(r, cluster("main", "10.0.0.1:80"))
		var header metadata.MD
		if _, err := f.client().EmptyCall(withTimeout(t), &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		if got := header.Get("x-envoy-attempt-count"); !slices.Equal(got, []string{"3"}) {
			t.Errorf("told %q", got)
		}
	})
}

func TestBR19_AServerRemovesWhatComesFromOutside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		names := []string{"x-envoy-retry-on", "x-envoy-retry-grpc-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms"}
		b := &backend{before: func(ctx context.Context, _ int64) error {
			for _, name := range names {
				if got := incoming(ctx, name); got != nil {
					t.Errorf("the application got %s: %q", name, got)
				}
			}
			if got := incoming(ctx, "x-other"); !slices.Equal(got, []string{"1"}) {
				t.Errorf("the application got x-other: %q", got)
			}
			return nil
		}}
		f.serve("10.0.0.1:80", b)
		conn, err := grpc.NewClient("passthrough:///10.0.0.1:80", // without the mesh
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return f.network.DialContext(ctx, "tcp", address)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		ctx := metadata.AppendToOutgoingContext(withTimeout(t), "x-other", "1")
		pairs := make([]string, 0, 2*len(names))
		for _, name := range names {
			pairs = append(pairs, name, "5")
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
		if err := callUnary(ctx, grpc_testing.NewTestServiceClient(conn)); err != nil {
			t.Error(err)
		}
	})
}

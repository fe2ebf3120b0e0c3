package grpcmesh_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// What gRPC does not send is no failure of an endpoint, and is not tried again.
func TestACallThatCannotBeSentIsTheCallersFault(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		ctx    func(context.Context) context.Context
		option grpc.CallOption
		want   codes.Code
	}{
		{
			"metadata that are invalid",
			func(ctx context.Context) context.Context {
				return metadata.AppendToOutgoingContext(ctx, "x-key", "a\r\nb")
			},
			grpc.EmptyCallOption{}, codes.Internal,
		},
		{
			"credentials that cannot be had",
			func(ctx context.Context) context.Context { return ctx },
			grpc.PerRPCCredentials(noCredentials{}), codes.Unauthenticated,
		},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{}
					f.serve(endpoint, b)
					f.configure(retrying(2, ^retry.Conditions(0)), cluster("main", endpoint))
					err := kind.call(tt.ctx(withTimeout(t)), f.client(grpc.WithDefaultCallOptions(tt.option)))
					e, ok := errors.AsType[*meshfail.Error](err)
					if !ok || e.Kind != outcome.BodyFailure || !e.SafeToRetry() || status.Code(err) != tt.want {
						t.Errorf("got %v", err)
					}
					synctest.Wait()
					if calls := f.seen.ended(observe.Outbound); len(calls) != 1 || calls[0].Attempts != 1 || b.calls.Load() != 0 {
						t.Errorf("observed %+v", calls)
					}
				})
			})
		}
	}
}

type noCredentials struct{}

func (noCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, status.Error(codes.Unauthenticated, "signed out")
}

func (noCredentials) RequireTransportSecurity() bool { return false }

package grpcmesh_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

// TestBM1_BM4_WhatTheMeshCannotSendIsUnavailable also holds for the configuration: no
// mistake in it may look like an answer of the application (gRFC A54).
func TestBM1_BM4_WhatTheMeshCannotSendIsUnavailable(t *testing.T) {
	t.Parallel()
	full := cluster("main", endpoint)
	full.Cluster.Limits[0].MaxRequests = 0
	dropping := cluster("main", endpoint)
	dropping.Endpoints.Drops = []discovery.Drop{{Category: "lb", PerMillion: 1_000_000}}
	elsewhere := forward("main")
	elsewhere.Match.Path = discovery.PathMatch{Kind: discovery.PathExact, Value: "/other"}
	tests := []struct {
		name     string
		route    *discovery.Route
		clusters []discovery.ClusterResult
	}{
		{"no endpoint", forward("main"), []discovery.ClusterResult{cluster("main")}},
		{"nobody listens", forward("main"), []discovery.ClusterResult{cluster("main", "10.9.9.9:1")}},
		{"a circuit breaker", forward("main"), []discovery.ClusterResult{full}},
		{"a drop", forward("main"), []discovery.ClusterResult{dropping}},
		{"no cluster", forward("gone"), nil},
		{"a broken cluster", forward("main"), []discovery.ClusterResult{{Err: errors.New("NACK"), Cluster: &discovery.Cluster{Name: "main"}}}},
		{"no route", elsewhere, []discovery.ClusterResult{cluster("main", endpoint)}},
		{"a route for arrivals", &discovery.Route{Local: true}, nil},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{}
					f.serve(endpoint, b)
					f.configure(tt.route, tt.clusters...)
					err := kind.call(withTimeout(t), f.client())
					if status.Code(err) != codes.Unavailable || b.calls.Load() != 0 {
						t.Errorf("%v, with %d calls at the application", err, b.calls.Load())
					}
				})
			})
		}
	}
}

func TestBM2_WhoseTimeItWasIsInTheStatus(t *testing.T) {
	t.Parallel()
	limited := forward("main")
	limited.Forward.Timeout = time.Second
	tests := []struct {
		name  string
		route *discovery.Route
		ctx   func(context.Context) (context.Context, context.CancelFunc)
		want  codes.Code
	}{
		{"the caller's deadline", forward("main"), func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, codes.DeadlineExceeded},
		{"the route's timeout", limited, context.WithCancel, codes.DeadlineExceeded},
		{"the caller's cancellation", forward("main"), func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, codes.Canceled},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					f.serve(endpoint, &backend{before: hang})
					f.configure(tt.route, cluster("main", endpoint))
					ctx, cancel := tt.ctx(t.Context())
					defer cancel()
					start := time.Now()
					err := kind.call(ctx, f.client())
					if status.Code(err) != tt.want || time.Since(start) != time.Second {
						t.Errorf("%v after %v", err, time.Since(start))
					}
				})
			})
		}
	}
}

func TestBM3_ADenialIsPermissionDenied(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				in := plaintext(endpoint)
				in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{}}}}
				b := &backend{}
				f.serveAs(in, b)
				f.forwardTo(endpoint)
				if err := kind.call(withTimeout(t), f.client()); status.Code(err) != codes.PermissionDenied || b.calls.Load() != 0 {
					t.Errorf("%v, with %d calls at the application", err, b.calls.Load())
				}
			})
		})
	}
}

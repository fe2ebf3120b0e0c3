package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/retry"
)

// saying fails the first n calls, and says in the trailers why, after headers of its own
// if there are any.
func saying(n int64, headers, trailers metadata.MD) func(context.Context, int64) error {
	return func(ctx context.Context, call int64) error {
		if call > n {
			return nil
		}
		if headers != nil {
			if err := grpc.SendHeader(ctx, headers); err != nil {
				return err
			}
		}
		if err := grpc.SetTrailer(ctx, trailers); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "scripted failure")
	}
}

// BR4: what a rate limit has refused is asked again on its own condition only.
func TestBR4_ARateLimitInhibitsRetriesOverGRPC(t *testing.T) {
	t.Parallel()
	for on, want := range map[retry.Conditions]int64{
		retry.OnGRPCUnavailable: 1, retry.OnGRPCUnavailable | retry.On5xx | retry.OnReset: 1,
		retry.OnEnvoyRateLimited: 3, retry.OnGRPCUnavailable | retry.OnEnvoyRateLimited: 3,
	} {
		for _, kind := range callKinds {
			t.Run(on.String()+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{before: saying(100, nil, metadata.Pairs("x-envoy-ratelimited", "true"))}
					f.serve(endpoint, b)
					f.configure(retrying(2, on), cluster("main", endpoint))
					if err := kind.call(withTimeout(t), f.client()); status.Code(err) != codes.Unavailable || b.calls.Load() != want {
						t.Errorf("%v after %d attempts, want %d", err, b.calls.Load(), want)
					}
				})
			})
		}
	}
}

// BR7: the server says when to come back, and is asked then, and not later than half of
// that after it.
func TestBR7_TheServerSaysWhenToComeBackOverGRPC(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				b := &backend{before: saying(1, nil, metadata.Pairs("retry-after", "4"))}
				f.serve(endpoint, b)
				route := retrying(1, retry.OnGRPCUnavailable)
				route.Forward.Retry.RateLimited = &retry.RateLimited{Max: time.Minute, Headers: []retry.ResetHeader{{Name: "retry-after"}}}
				f.configure(route, cluster("main", endpoint))
				client := f.client()
				begin := time.Now()
				err := kind.call(withTimeout(t), client)
				if took := time.Since(begin); err != nil || b.calls.Load() != 2 || took < 4*time.Second || took > 6*time.Second {
					t.Errorf("%v after %d attempts in %v", err, b.calls.Load(), took)
				}
			})
		})
	}
}

// BR8: a push-back is in the trailers, also of a server that had sent headers before,
// and whoever else reads those.
func TestBR8_APushBackBehindHeadersIsObeyed(t *testing.T) {
	t.Parallel()
	readers := map[string]func(*discovery.Route, *discovery.Cluster){
		"nobody": func(*discovery.Route, *discovery.Cluster) {},
		"the policy": func(r *discovery.Route, _ *discovery.Cluster) {
			r.Forward.Retry.RateLimited = &retry.RateLimited{Max: time.Minute, Headers: []retry.ResetHeader{{Name: "retry-after"}}}
		},
		"hedges": func(r *discovery.Route, _ *discovery.Cluster) { r.Forward.Hedge = &retry.Hedge{Delay: time.Hour} },
	}
	for reader, edit := range readers {
		for _, kind := range callKinds {
			t.Run(reader+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{before: saying(100, metadata.Pairs("x-a", "1"), metadata.Pairs("grpc-retry-pushback-ms", "-1"))}
					f.serve(endpoint, b)
					route, c := retrying(3, retry.OnGRPCUnavailable), cluster("main", endpoint)
					edit(route, c.Cluster)
					f.configure(route, c)
					ctx := metadata.AppendToOutgoingContext(withTimeout(t), "idempotency-key", "7")
					if err := kind.call(ctx, f.client()); status.Code(err) != codes.Unavailable || b.calls.Load() != 1 {
						t.Errorf("%v after %d attempts, want one", err, b.calls.Load())
					}
				})
			})
		}
	}
}

// BR21: what the mesh refuses itself is not retried, whatever the policy says.
func TestBR21_WhatTheMeshRefusesIsNotRetriedOverGRPC(t *testing.T) {
	t.Parallel()
	full := func(c *discovery.ClusterResult) { c.Cluster.Limits[0].MaxRequests = 0 }
	dropped := func(c *discovery.ClusterResult) {
		c.Endpoints.Drops = []discovery.Drop{{Category: "lb", PerMillion: 1_000_000}}
	}
	aborted := []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 1_000_000}}}}
	delayed := []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: 1_000_000}}}}
	for name, tt := range map[string]struct {
		edit     func(*discovery.ClusterResult)
		filters  []discovery.HTTPFilter
		code     codes.Code
		attempts int
	}{
		"a circuit breaker":         {edit: full, code: codes.Unavailable, attempts: 1},
		"drop_overload":             {edit: dropped, code: codes.Unavailable},
		"an abort":                  {filters: aborted, code: codes.Unavailable},
		"the end of a delay's time": {filters: delayed, code: codes.DeadlineExceeded},
	} {
		for _, kind := range callKinds {
			t.Run(name+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{}
					f.serve(endpoint, b)
					c := cluster("main", endpoint)
					if tt.edit != nil {
						tt.edit(&c)
					}
					route := retrying(3, ^retry.Conditions(0))
					f.source.setTarget(target, &discovery.Target{
						Name: target, Listener: &discovery.APIListener{Name: target, Filters: tt.filters},
						Routes: &discovery.RouteTable{Name: target, VirtualHosts: []*discovery.VirtualHost{{
							Name: target, Domains: []string{"*"}, Routes: []*discovery.Route{route},
						}}},
						Clusters: clustersByName([]discovery.ClusterResult{c}),
					})
					err := kind.call(withTimeout(t), f.client())
					synctest.Wait()
					calls := f.seen.ended(observe.Outbound)
					if status.Code(err) != tt.code || b.calls.Load() != 0 || len(calls) != 1 || calls[0].Attempts != tt.attempts {
						t.Errorf("%v, %d calls arrived, observed %+v", err, b.calls.Load(), calls)
					}
				})
			})
		}
	}
}

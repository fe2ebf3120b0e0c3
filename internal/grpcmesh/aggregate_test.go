package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
)

// leaf is a cluster of localities that an aggregate consists of.
func leaf(name string, policy balancer.Policy, localities ...discovery.LocalityEndpoints) discovery.ClusterResult {
	c := placed(balancer.Config{Policy: policy}, localities...)
	c.Cluster.Name, c.Endpoints.Name = name, name
	return c
}

// aggregateOf is the cluster "main", which consists of others.
func aggregateOf(names ...string) discovery.ClusterResult {
	return discovery.ClusterResult{
		Cluster:   &discovery.Cluster{Name: "main", Aggregate: names, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}},
		Endpoints: &discovery.Assignment{Name: "main"},
		Leaves:    names,
	}
}

func TestAnAggregateFailsOverToItsNextCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		near, far := block(1, 2), block(2, 2)
		nearby := []*both{f.serveBoth(near[0]), f.serveBoth(near[1])}
		remote := []*both{f.serveBoth(far[0]), f.serveBoth(far[1])}
		calls := f.clients()
		// toNear makes 100 calls over each protocol, and says how many went near.
		toNear := func() int64 {
			t.Helper()
			for _, b := range append(nearby[:2:2], remote...) {
				b.calls.Store(0)
				b.plain.Store(0)
			}
			for range 100 {
				if err := calls.callHTTP(context.Background()); err != nil {
					t.Error(err)
				}
				if err := calls.callGRPC(context.Background()); err != nil {
					t.Error(err)
				}
			}
			var got int64
			for _, b := range nearby {
				got += b.calls.Load() + b.plain.Load()
			}
			return got
		}
		configure := func(healthy int) {
			f.configure(forward("main"), aggregateOf("near", "far"),
				leaf("near", balancer.RoundRobin, located(0, 1, "n", healthy, near...)),
				leaf("far", balancer.LeastRequest, located(0, 1, "f", 2, far...)))
			synctest.Wait()
		}
		configure(2)
		if got := toNear(); got != 200 {
			t.Errorf("both are healthy: %d of 200 calls went near", got)
		}
		configure(1) // 50 % healthy bear 70 %; 4 deviations of 200 draws are 26
		if got := toNear(); got < 114 || got > 166 {
			t.Errorf("one is healthy: %d of 200 calls went near, want 140 ± 26", got)
		}
		configure(0)
		if got := toNear(); got != 0 {
			t.Errorf("none is healthy: %d of 200 calls went near", got)
		}
	})
}

func TestAnAggregateWhoseFirstClusterRefusesGoesToTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		near, far := block(1, 2), block(2, 1)
		s := f.serveBoth(far[0])
		f.configure(connecting(), aggregateOf("near", "far"),
			leaf("near", balancer.RoundRobin, located(0, 1, "n", 2, near...)),
			leaf("far", balancer.RoundRobin, located(0, 1, "f", 1, far...)))
		calls := f.clients()
		for i := range 20 {
			if err := calls.callHTTP(context.Background()); err != nil {
				t.Errorf("call %d: HTTP: %v", i, err)
			}
			if err := calls.callGRPC(context.Background()); err != nil {
				t.Errorf("call %d: gRPC: %v", i, err)
			}
		}
		if got := s.calls.Load() + s.plain.Load(); got != 40 {
			t.Errorf("the next cluster got %d of 40 calls", got)
		}
	})
}

func TestALeafHasLimitsOfItsOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: hang}
		f.serve("10.0.1.1:9090", b)
		limited := leaf("near", balancer.RoundRobin, located(0, 1, "n", 1, "10.0.1.1:9090"))
		limited.Cluster.Limits[0].MaxRequests = 1
		f.configure(forward("main"), aggregateOf("near"), limited)
		client := f.client()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = client.EmptyCall(ctx, &grpc_testing.Empty{})
		}()
		synctest.Wait()
		if _, err := client.EmptyCall(context.Background(), &grpc_testing.Empty{}); err == nil {
			t.Error("a second request passed the limit of 1")
		}
		cancel()
		<-done
		f.checkNothingCounted()
	})
}

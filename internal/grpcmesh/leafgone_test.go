package grpcmesh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/grpcmesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// within returns an edit of a fixture which has f run within the next attempt that
// begins: when it has its cluster, and no endpoint yet.
func within(f *func()) func(*grpcmesh.Options) {
	return func(o *grpcmesh.Options) {
		next := o.Hooks.AttemptStarted
		o.Hooks.AttemptStarted = func(ctx context.Context, a *observe.Attempt) context.Context {
			if run := *f; run != nil {
				*f = nil
				run()
				time.Sleep(time.Millisecond) // until it is in force
			}
			return next(ctx, a)
		}
	}
}

// leafChange is what may become of an aggregate of near and far.
type leafChange struct {
	name     string
	clusters func(near, far []string) []discovery.ClusterResult
}

// without is a cluster without endpoints.
func without(c discovery.ClusterResult) discovery.ClusterResult {
	c.Endpoints = &discovery.Assignment{Name: c.Cluster.Name}
	return c
}

// unhealthyLeaf is a leaf none of whose endpoints is healthy.
func unhealthyLeaf(threshold float64, fails bool, near []string) discovery.ClusterResult {
	c := leaf("near", balancer.RoundRobin, located(0, 1, "n", 0, near...))
	c.Cluster.Balancer.PanicThreshold, c.Cluster.Balancer.FailOnPanic = threshold, fails
	return c
}

func farLeaf(far []string) discovery.ClusterResult {
	return leaf("far", balancer.LeastRequest, located(0, 1, "f", len(far), far...))
}

func nearLeaf(near []string) discovery.ClusterResult {
	return leaf("near", balancer.RoundRobin, located(0, 1, "n", len(near), near...))
}

// leafChanges are those after which no call may be sent near.
var leafChanges = []leafChange{
	{"its assignment becomes empty", func(near, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("near", "far"), without(nearLeaf(near)), farLeaf(far)}
	}},
	{"it is deleted", func(_, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("far"), farLeaf(far)}
	}},
	{"it cannot be used any more", func(near, far []string) []discovery.ClusterResult {
		broken := nearLeaf(near)
		broken.Err = context.DeadlineExceeded
		return []discovery.ClusterResult{aggregateOf("near", "far"), broken, farLeaf(far)}
	}},
	{"all its endpoints become unhealthy", func(near, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("near", "far"), unhealthyLeaf(0, false, near), farLeaf(far)}
	}},
	{"all its endpoints become unhealthy and fail in a panic", func(near, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("near", "far"), unhealthyLeaf(50, true, near), farLeaf(far)}
	}},
	{"it is emptied and comes last", func(near, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("far", "near"), without(nearLeaf(near)), farLeaf(far)}
	}},
	{"another one gets its endpoints", func(near, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{aggregateOf("near", "new"), without(nearLeaf(near)), leaf("new", balancer.RoundRobin, located(0, 1, "f", len(far), far...))}
	}},
	{"the aggregate becomes a cluster of its own", func(_, far []string) []discovery.ClusterResult {
		return []discovery.ClusterResult{cluster("main", far...)}
	}},
}

// An attempt that has its cluster and no endpoint yet goes where it would go now, when
// that cluster can serve it no more.
func TestAnAttemptWhoseLeafCanServeItNoMoreGoesToAnother(t *testing.T) {
	t.Parallel()
	for _, change := range leafChanges {
		for _, hedged := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hedged %t", change.name, hedged), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var gone func()
					f := newFixture(t, within(&gone))
					near, far := block(1, 2), block(2, 2)
					for _, address := range near {
						f.serveBoth(address)
					}
					remote := []*both{f.serveBoth(far[0]), f.serveBoth(far[1])}
					route := forward("main")
					if hedged {
						route.Forward.Retry = &retry.Policy{MaxRetries: 1, On: retry.On5xx}
						route.Forward.Hedge = &retry.Hedge{Delay: time.Minute}
					}
					calls := f.clients()
					for _, call := range []func(context.Context) error{calls.callHTTP, calls.callGRPC} {
						f.configure(route, aggregateOf("near", "far"), nearLeaf(near), farLeaf(far))
						synctest.Wait()
						gone = func() { f.configure(route, change.clusters(near, far)...) }
						if err := call(t.Context()); err != nil {
							t.Error(err)
						}
						settle()
						f.checkNothingCounted()
					}
					var got int64
					for _, b := range remote {
						got += b.calls.Load() + b.plain.Load()
					}
					if got != 2 {
						t.Errorf("%d of 2 calls went far", got)
					}
				})
			})
		}
	}
}

// The limits of the cluster that an attempt moves to are kept, and those of the one that
// it has left are not in the way of others.
func TestAnAttemptThatMovesToAnotherLeafTakesItsPermits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var change func()
		f := newFixture(t, within(&change))
		near, far := block(1, 1), block(2, 1)
		f.serveBoth(near[0])
		f.serveBoth(far[0])
		full := farLeaf(far)
		full.Cluster.Limits[0].MaxRequests = 0
		calls := f.clients()
		for _, call := range []func(context.Context) error{calls.callHTTP, calls.callGRPC} {
			f.configure(forward("main"), aggregateOf("near", "far"), nearLeaf(near), full)
			synctest.Wait()
			change = func() { f.configure(forward("main"), aggregateOf("near", "far"), without(nearLeaf(near)), full) }
			err := call(t.Context())
			if failure, ok := errors.AsType[*meshfail.Error](err); !ok || failure.Kind != outcome.Overflow {
				t.Errorf("no limit says so: %v", err)
			}
			f.checkNothingCounted()
		}
	})
}

// Calls meet every change of an aggregate, one after the other, and none fails.
func TestNoCallFailsWhileTheLeavesOfAnAggregateChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, calls = 16, 100
		f := newFixture(t)
		near, far := block(1, 2), block(2, 2)
		for _, address := range append(near[:2:2], far...) {
			f.serveBoth(address)
		}
		both := []discovery.ClusterResult{aggregateOf("near", "far"), nearLeaf(near), farLeaf(far)}
		f.configure(forward("main"), both...)
		client := f.clients()
		stop := make(chan struct{})
		var changing, calling sync.WaitGroup
		changing.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				if change := leafChanges[i/2%len(leafChanges)]; i%2 == 0 {
					f.configure(forward("main"), change.clusters(near, far)...)
				} else {
					f.configure(forward("main"), both...)
				}
			}
		})
		for i := range callers {
			call := client.callHTTP
			if i%2 == 0 {
				call = client.callGRPC
			}
			calling.Go(func() {
				for range calls {
					if err := call(t.Context()); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(i) * 10 * time.Microsecond)
				}
			})
		}
		calling.Wait()
		close(stop)
		changing.Wait()
		settle()
		f.checkNothingCounted()
	})
}

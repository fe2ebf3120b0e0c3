package pipeline

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

func getCharge() *route.Request {
	return &route.Request{Method: "GET", Scheme: "http", Host: "payment.shop", Path: "/charge"}
}

type update = discovery.Update[*discovery.Target]

func TestS02_ACallWaitsForItsConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b.outbound.Target(targetName)
		time.AfterFunc(5*time.Second, func() { b.send(targetName, update{Err: errors.New("no connection")}) })
		time.AfterFunc(20*time.Second, func() { b.send(targetName, update{Value: newTarget()}) })
		if o := b.took(ctx, &adapter{}, 20*time.Second); o.Kind != outcome.Response {
			t.Errorf("got %v: %v", o.Kind, o.Err)
		}
	})
}

func TestS02_ACallFailsIfItsConfigurationComesTooLate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		deadline time.Duration // 0: none
		err      error
		want     string
	}{
		"with a deadline": {
			deadline: time.Second,
			want:     `mesh: target "payment.shop:80": no configuration yet: context deadline exceeded`,
		},
		"without a deadline, after 15 s": {
			want: `mesh: target "payment.shop:80": no configuration yet: context deadline exceeded`,
		},
		"and names the reason": {
			deadline: time.Second, err: errors.New("ads: connection refused"),
			want: `mesh: target "payment.shop:80": no configuration: ads: connection refused (context deadline exceeded)`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ctx, wait := t.Context(), 15*time.Second
				if tt.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.deadline)
					defer cancel()
					wait = tt.deadline
				}
				b.outbound.Target(targetName)
				if tt.err != nil {
					b.publish(targetName, update{Err: tt.err})
				}
				d := &adapter{}
				begin := time.Now()
				o, _ := b.run(ctx, d)
				if took := time.Since(begin); took != wait {
					t.Errorf("the call took %v, want %v", took, wait)
				}
				e := expectError(t, o, outcome.NoConfig, tt.want)
				if !e.SafeToRetry() || d.attempts+d.routed != 0 {
					t.Errorf("safe to retry: %t after %d attempts", e.SafeToRetry(), d.attempts)
				}
				b.expect("call", "call ended: no-config")
			})
		})
	}
}

func TestACancelEndsTheWaitForConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		o, _ := b.run(ctx, &adapter{})
		expectError(t, o, outcome.Canceled, `mesh: target "payment.shop:80": no configuration yet: context canceled`)
	})
}

func TestS03_AnUnknownHostFailsAtOnceAndMayAppearLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.outbound.Target(targetName)
		b.publish(targetName, update{Err: discovery.ErrNotFound})
		begin := time.Now()
		o, _ := b.run(t.Context(), &adapter{})
		if took := time.Since(begin); took != 0 {
			t.Errorf("the call took %v", took)
		}
		e := expectError(t, o, outcome.UnknownHost, `mesh: target "payment.shop:80": not known to the control plane`)
		if !errors.Is(e, discovery.ErrNotFound) {
			t.Errorf("%v is not ErrNotFound", e)
		}
		b.publish(targetName, update{Value: newTarget()})
		if o, _ := b.run(t.Context(), &adapter{}); o.Kind != outcome.Response {
			t.Errorf("after it appeared: %v: %v", o.Kind, o.Err)
		}
		b.publish(targetName, update{Err: discovery.ErrNotFound})
		o, _ = b.run(t.Context(), &adapter{})
		expectErrorKind(t, o, outcome.UnknownHost)
	})
}

func TestX74_ACallEndsUnderTheConfigurationItBeganWith(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget())
		c := b.prepare(&adapter{})
		o := c.Run(t.Context(), getCharge())
		cluster := c.cluster
		b.publish(targetName, update{Value: newTarget(func(t *discovery.Target) {
			top(t).Forward.Clusters[0].Name = "v2"
			t.Clusters = map[string]discovery.ClusterResult{"v2": newCluster("v2", "10.0.1.1:80")}
		})})
		if c.Decision.Cluster.Name != "v1" || c.cluster != cluster {
			t.Errorf("the call is at cluster %q now", c.Decision.Cluster.Name)
		}
		if got := cluster.Gate(0).Usage().Requests; got != 1 {
			t.Errorf("%d requests are counted in the cluster that left", got)
		}
		next := b.prepare(&adapter{})
		next.Finish(next.Run(t.Context(), getCharge()))
		if next.Decision.Cluster.Name != "v2" {
			t.Errorf("the next call is at cluster %q", next.Decision.Cluster.Name)
		}
		c.Finish(o)
		if got := cluster.Gate(0).Usage().Requests; got != 0 {
			t.Errorf("%d requests are counted after the call", got)
		}
		b.idle("v2")
	})
}

func TestX70_ABrokenClusterFailsItsOwnCallsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) {
			good := top(t)
			bad := *good
			bad.Name, bad.Match.Path.Value = "bad", "/bad"
			bad.Forward = &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: "v2", Weight: 1}}}
			t.Routes.VirtualHosts[0].Routes = []*discovery.Route{&bad, good}
			t.Clusters["v2"] = discovery.ClusterResult{Err: errors.New("unsupported type LOGICAL_DNS")}
		}))
		d := &adapter{}
		c := b.prepare(d)
		req := getCharge()
		req.Path = "/bad/charge"
		o := c.Run(t.Context(), req)
		e := expectError(t, o, outcome.NoConfig, `mesh: target "payment.shop:80": route "bad": cluster "v2": unsupported type LOGICAL_DNS`)
		if !e.SafeToRetry() || d.attempts != 0 {
			t.Errorf("safe to retry: %t after %d attempts", e.SafeToRetry(), d.attempts)
		}
		if o, _ := b.run(t.Context(), &adapter{}); o.Kind != outcome.Response {
			t.Errorf("the other cluster: %v: %v", o.Kind, o.Err)
		}
		b.idle("v1")
		b.idle("v2")
	})
}

func TestAClusterWithoutEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) { t.Clusters["v1"] = newCluster("v1") }))
		o, _ := b.run(t.Context(), &adapter{})
		e := expectErrorKind(t, o, outcome.NoEndpoint)
		if !e.SafeToRetry() {
			t.Error("it is not safe to retry")
		}
		b.idle("v1")
	})
}

func TestUnknownTargetsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		known, unknown, used := "known:80", "unknown:80", "used:80"
		for _, name := range []string{known, unknown, used} {
			b.outbound.Target(name)
		}
		b.publish(known, update{Value: &discovery.Target{Name: known, Listener: &discovery.APIListener{}, Routes: &discovery.RouteTable{}}})
		b.publish(unknown, update{Err: discovery.ErrNotFound})
		b.publish(used, update{Err: discovery.ErrNotFound})
		for range 30 {
			time.Sleep(time.Minute)
			if _, err := b.outbound.Target(used).Config(t.Context()); !errors.Is(err, discovery.ErrNotFound) {
				t.Fatal(err)
			}
		}
		if b.source.watching(unknown) {
			t.Error("a target that nobody asks for is still watched")
		}
		for _, name := range []string{known, used} {
			if !b.source.watching(name) {
				t.Errorf("%s is not watched any more", name)
			}
		}
		b.outbound.Target(unknown) // it is followed again when somebody asks
		if !b.source.watching(unknown) {
			t.Error("a target that was forgotten is not watched again")
		}
	})
}

// Who holds a target that was forgotten meanwhile gets what its successor gets.
func TestAForgottenTargetIsFollowedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		target := b.outbound.Target(targetName)
		b.publish(targetName, update{Err: discovery.ErrNotFound})
		time.Sleep(30 * time.Minute)
		if b.source.watching(targetName) {
			t.Fatal("the target is still watched")
		}
		config := make(chan error, 1)
		go func() {
			_, err := target.Config(t.Context())
			config <- err
		}()
		synctest.Wait()
		b.publish(targetName, update{Value: newTarget()})
		if err := <-config; err != nil {
			t.Error(err)
		}
	})
}

func TestEveryCallerSharesOneTarget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		target := b.outbound.Target(targetName)
		if target.Name() != targetName || b.outbound.Target(targetName) != target || b.outbound.TargetBytes([]byte(targetName)) != target {
			t.Error("one name has several targets")
		}
		if config, _ := target.Watch(); config != nil {
			t.Error("there is a configuration before any was published")
		}
		_, changed := target.Watch()
		b.publish(targetName, update{Value: newTarget()})
		select {
		case <-changed:
		default:
			t.Error("a watcher was not told of the change")
		}
	})
}

// Equal parts of two versions are compiled once and keep what runs.
func TestAnUpdateKeepsWhatDidNotChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		first := newTarget()
		b.configure(first)
		before, _ := b.outbound.Target(targetName).Watch()
		b.publish(targetName, update{Value: first, Err: errors.New("the control plane is away")})
		if same, _ := b.outbound.Target(targetName).Watch(); same != before {
			t.Error("an ambient error made a new configuration")
		}
		second := *first
		second.Clusters = map[string]discovery.ClusterResult{"v1": newCluster("v1", "10.0.0.1:80"), "v2": newCluster("v2")}
		b.publish(targetName, update{Value: &second})
		after, _ := b.outbound.Target(targetName).Watch()
		if after == before || after.Routes != before.Routes || after.Clusters["v1"] != before.Clusters["v1"] {
			t.Error("the routes or the cluster are others although they did not change")
		}
	})
}

func TestCloseFailsCallsAndUnsubscribes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget())
		target := b.outbound.Target(targetName)
		waiting := make(chan outcome.Outcome, 1)
		go func() {
			c := &Call{}
			b.outbound.Prepare(c, b.outbound.Target("other:80"), &adapter{})
			waiting <- c.Run(t.Context(), getCharge())
		}()
		synctest.Wait()
		b.outbound.Close()
		expectError(t, <-waiting, outcome.Closed, `mesh: target "other:80": mesh closed`)
		for _, t2 := range []*Target{target, b.outbound.Target("third:80")} {
			if _, err := t2.Config(t.Context()); !errors.Is(err, upstream.ErrClosed) {
				t.Errorf("Config of %s after Close: %v", t2.Name(), err)
			}
		}
		for _, name := range []string{targetName, "other:80", "third:80"} {
			if b.source.watching(name) {
				t.Errorf("%s is still watched", name)
			}
		}
		b.outbound.Close()
	})
}

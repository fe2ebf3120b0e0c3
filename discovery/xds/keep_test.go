package xds_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/observe"
)

// process is one life of a process that keeps its configuration.
type process struct {
	*xds.Source

	published *recorder[*discovery.Target]
	used      []int // resources from disk, at each change
	refused   []error
	log       bytes.Buffer
}

// begin starts a process that follows the destination.
func (c *controlPlane) begin(dir string, features ...string) *process {
	c.t.Helper()
	p := new(process)
	source, err := xds.NewSource(c.config(features...), xds.Options{
		LastKnownGood: xds.LastKnownGood{Dir: dir},
		Logger:        slog.New(slog.NewTextHandler(&p.log, nil)),
		Hooks: observe.Hooks{LastGood: func(e observe.LastGoodEvent) {
			switch e.Kind {
			case observe.LastGoodUsed:
				p.used = append(p.used, e.Resources)
			case observe.LastGoodRefused:
				p.refused = append(p.refused, e.Err)
			case observe.LastGoodWritten, observe.LastGoodNotWritten:
			}
		}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	p.Source = source
	p.published = watchTarget(source)
	c.t.Cleanup(func() { p.end(c.t) })
	return p
}

func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// keepOne lets a process keep what serveOne says, and end with its control plane.
func keepOne(t *testing.T, cp *controlPlane, features ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "kept")
	serveOne(cp)
	p := cp.begin(dir, features...)
	cp.accept()
	if addressOf(p.published.last(t).Value, "a") != "10.0.0.1:1" {
		t.Fatal("no target")
	}
	if got := p.ConfigSource(); got.Live != 4 || got.LastKnownGood != 0 || got.String() != "live" || got.File == "" {
		t.Errorf("source %+v", got)
	}
	p.end(t)
	cp.stop()
	return dir
}

func TestAProcessStartsWithoutAControlPlaneFromDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := keepOne(t, cp)
		start := time.Now()
		p := cp.begin(dir)
		synctest.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
		update := p.published.last(t)
		if update.Value == nil || addressOf(update.Value, "a") != "10.0.0.1:1" || update.Err == nil || !strings.Contains(update.Err.Error(), "is unavailable") {
			t.Fatalf("published %+v", update)
		}
		if got := p.ConfigSource(); got.LastKnownGood != 4 || got.Live != 0 || got.String() != "last known good" || !got.Saved.Equal(start) {
			t.Errorf("source %+v", got)
		}
		for _, r := range p.Dump() {
			if !r.LastKnownGood || r.Version == "" || r.State != "REQUESTED" {
				t.Errorf("resource %+v", r)
			}
		}
		if n := len(p.used); n == 0 || p.used[n-1] != 4 {
			t.Errorf("told of %v resources in use", p.used)
		}
		if !strings.Contains(p.log.String(), "last known good configuration from disk is used") {
			t.Errorf("log %q", p.log.String())
		}
	})
}

func TestLiveConfigurationTakesOverWithoutAGap(t *testing.T) {
	t.Parallel()
	t.Run("the same", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cp := newControlPlane(t)
			dir := keepOne(t, cp)
			p := cp.begin(dir)
			synctest.Wait()
			before := p.published.last(t).Value
			cp.server.Restart()
			time.Sleep(2 * time.Second) // the back-off
			cp.accept()
			after := p.published.last(t)
			if after.Value != before || after.Err != nil {
				t.Errorf("published %+v, want the same target without an error", after)
			}
			if got := p.ConfigSource(); got.Live != 4 || got.LastKnownGood != 0 {
				t.Errorf("source %+v", got)
			}
			if p.used[len(p.used)-1] != 0 || !strings.Contains(p.log.String(), "no configuration from disk is used any more") {
				t.Errorf("told of %v resources in use, log %q", p.used, p.log.String())
			}
		})
	})
	t.Run("another one, whose cluster is new and whose old one is gone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			cp := newControlPlane(t)
			dir := keepOne(t, cp)
			p := cp.begin(dir)
			synctest.Wait()
			p.published.take()
			delete(cp.resources[clusterURL], "a")
			delete(cp.resources[endpointURL], "a")
			cp.resources[routeURL]["r"] = routes("r", "b")
			cp.resources[clusterURL]["b"] = cluster("b")
			cp.resources[endpointURL]["b"] = endpoints("b", 2)
			cp.server.Restart()
			time.Sleep(2 * time.Second)
			cp.accept()
			updates := p.published.take()
			for _, u := range updates {
				if u.Value == nil {
					t.Fatalf("published %+v: a gap", u)
				}
				if r := u.Value.Clusters["a"]; u.Value.Clusters["a"].Cluster != nil && r.Endpoints == nil {
					t.Fatalf("published %+v: the old cluster lost its endpoints before the new one was there", u)
				}
			}
			if got := updates[len(updates)-1]; addressOf(got.Value, "b") != "10.0.0.1:2" || got.Err != nil {
				t.Errorf("published %+v", got)
			}
			// What is not used any more is not kept either.
			p.end(t)
			cp.stop()
			p = cp.begin(dir)
			synctest.Wait()
			if got := p.published.last(t).Value; got == nil || addressOf(got, "b") != "10.0.0.1:2" || p.ConfigSource().LastKnownGood != 4 {
				t.Errorf("published %+v", got)
			}
		})
	})
}

func TestS08_AControlPlaneThatIsSilentIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := keepOne(t, cp)
		cp.server.Restart()
		p := cp.begin(dir)
		stream := cp.server.Accept()
		time.Sleep(999 * time.Millisecond)
		p.published.none(t)
		time.Sleep(9 * time.Millisecond) // once, and not for each resource that the first leads to
		update := p.published.last(t)
		if update.Value == nil || update.Err == nil || !strings.Contains(update.Err.Error(), "the control plane has not answered") {
			t.Fatalf("published %+v", update)
		}
		time.Sleep(time.Minute) // the timers of resources that do not exist are over
		for _, u := range p.published.take() {
			if u.Value != update.Value {
				t.Errorf("published %+v", u)
			}
		}
		cp.stream, cp.asked = stream, map[string][]string{}
		cp.run()
		if got := p.published.last(t); got.Value != update.Value || got.Err != nil {
			t.Errorf("published %+v, want the same without an error", got)
		}
	})
}

func TestS05_AnInvalidVersionAfterAStartLeavesTheOneFromDisk(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var features []string
			if strict {
				features = append(features, "fail_on_data_errors")
			}
			cp := newControlPlane(t)
			dir := keepOne(t, cp, features...)
			bad := cluster("a")
			bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
			cp.resources[clusterURL]["a"] = bad
			cp.server.Restart()
			p := cp.begin(dir, features...)
			cp.accept()
			if nacks := cp.nacks(); !strings.Contains(nacks, `"a"`) {
				t.Fatalf("rejected: %q", nacks)
			}
			update := p.published.last(t)
			works := update.Value != nil && update.Value.Clusters["a"].Err == nil
			if works == strict {
				t.Errorf("strict %v: published %+v (%+v)", strict, update, update.Value.Clusters)
			}
		})
	}
}

func TestAResourceThatIsNotValidAnyMoreIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := t.TempDir()
		// The first process has a policy of its own that the next one lacks.
		custom := cluster("a")
		custom.Metadata = parse(&corev3.Metadata{}, `{"filterMetadata": {"inboard.balancer": {"policy": "mine"}}}`)
		serveOne(cp)
		cp.resources[clusterURL]["a"] = custom
		mine := balancer.Custom{Name: "mine", New: func(hosts []*balancer.Host, _ map[string]any) balancer.Picker { return nil }}
		first, err := xds.NewSource(cp.config(), xds.Options{
			LastKnownGood: xds.LastKnownGood{Dir: dir}, Balancers: map[string]balancer.Custom{"mine": mine},
		})
		if err != nil {
			t.Fatal(err)
		}
		watchTarget(first)
		cp.accept()
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		cp.stop()
		p := cp.begin(dir)
		synctest.Wait()
		update := p.published.last(t)
		if update.Value != nil && update.Value.Clusters["a"].Err == nil {
			t.Errorf("published %+v", update.Value.Clusters["a"])
		}
		if len(p.refused) != 1 || !strings.Contains(p.refused[0].Error(), `Cluster "a" from disk is not used: `) {
			t.Errorf("refused %v", p.refused)
		}
	})
}

func TestAFileOfAnotherWorkloadIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := keepOne(t, cp)
		config := cp.config()
		config.Node.Metadata["NAMESPACE"] = "bank"
		s, err := xds.NewSource(config, xds.Options{LastKnownGood: xds.LastKnownGood{Dir: dir}})
		if err != nil {
			t.Fatal(err)
		}
		published := watchTarget(s)
		synctest.Wait()
		if got := published.last(t); got.Value != nil {
			t.Errorf("published %+v", got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAnInboundListenerFromDiskIsWholeOrNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := t.TempDir()
		cp.set(serverListener("in"), serverRoutes("in"))
		watch := func(p *process) *recorder[*discovery.Inbound] {
			r := &recorder[*discovery.Inbound]{}
			p.WatchInbound("0.0.0.0:8080", r.notify)
			return r
		}
		p := cp.begin(dir)
		watch(p)
		cp.accept()
		p.end(t)
		cp.stop()
		p = cp.begin(dir)
		inbound := watch(p)
		synctest.Wait()
		if got := inbound.last(t); got.Value == nil || got.Err == nil {
			t.Errorf("published %+v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := t.TempDir()
		cp.set(serverListener("in")) // its routes, and their policy, never come
		p := cp.begin(dir)
		inbound := &recorder[*discovery.Inbound]{}
		p.WatchInbound("0.0.0.0:8080", inbound.notify)
		cp.accept()
		p.end(t)
		cp.stop()
		p = cp.begin(dir)
		p.WatchInbound("0.0.0.0:8080", inbound.notify)
		time.Sleep(time.Minute)
		for _, u := range inbound.take() {
			if u.Value != nil {
				t.Errorf("published %+v", u)
			}
		}
		if got := p.ConfigSource(); got.LastKnownGood != 1 {
			t.Errorf("source %+v, want the listener alone", got)
		}
	})
}

func TestMistakesInWhatToKeepAreReportedTogether(t *testing.T) {
	t.Parallel()
	l := xds.LastKnownGood{Dir: "a/b", MaxAge: -1, MaxBytes: 5}
	err := l.Validate()
	for _, want := range []string{`Dir "a/b" is not an absolute path`, "MaxAge -1ns is less than 1s", "MaxBytes 5 is less than 4096"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if err := (&xds.LastKnownGood{MaxAge: time.Hour}).Validate(); err == nil {
		t.Error("a MaxAge without a Dir is no mistake")
	}
	if err := (&xds.LastKnownGood{}).Validate(); err != nil {
		t.Error(err)
	}
}

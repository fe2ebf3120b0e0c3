package mesh_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/mesh"
)

// hold lets calls to a host last until the test is over for them.
func (l *leavesWorld) hold(t *testing.T, host string, n int) (release func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			if strings.HasSuffix(host, ":80") {
				req := request(t, http.MethodGet, "http://payment.shop/").WithContext(ctx)
				req.Header.Set(slowHeader, "yes")
				if resp, err := l.customer.Transport().RoundTrip(req); err == nil {
					resp.Body.Close()
				}
				return
			}
			_ = l.channel.Invoke(metadata.AppendToOutgoingContext(ctx, slowHeader, "yes"), explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
		})
	}
	synctest.Wait()
	return func() {
		cancel()
		calls.Wait()
	}
}

// overflows expects a verdict, and that a call fails, and both say why.
func (l *leavesWorld) overflows(t *testing.T, host, reason string, inError ...string) {
	t.Helper()
	e := l.explain(t, host)
	if e.Verdict != mesh.VerdictOverflow || !strings.Contains(e.Reason, reason) {
		t.Errorf("%s: the verdict is %s: %q, want %q", host, e.Verdict, e.Reason, reason)
	}
	_, err := l.call(t, host)
	if err == nil {
		t.Errorf("%s: the call came to an end\n%v", host, e)
		return
	}
	for _, text := range inError {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", host, err, text)
		}
	}
}

func (l *leavesWorld) forwards(t *testing.T, host, reason string) {
	t.Helper()
	e := l.explain(t, host)
	if e.Verdict != mesh.VerdictForward || !strings.Contains(e.Reason, reason) || reason == "" && e.Reason != "" {
		t.Errorf("%s: the verdict is %s: %q, want forward: %q", host, e.Verdict, e.Reason, reason)
	}
	if _, err := l.call(t, host); err != nil {
		t.Errorf("%s: %v", host, err)
	}
}

func TestExplainKnowsLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		at := make(map[string][]string)
		for _, host := range leavesHosts {
			at[host] = l.addresses(t, host)
		}
		// In each step a cluster alone and two leaves, of which the first gets all calls.
		push := func(limits string) {
			var all []proto.Message
			for _, host := range leavesHosts {
				near, far := []string{leafEndpoint(at[host][0], "HEALTHY")}, []string{leafEndpoint(at[host][1], "HEALTHY")}
				all = append(all, aggregated(host, "near "+host, "far "+host)...)
				all = append(all, leafCluster("near "+host, limits, near), leafCluster("far "+host, "", far))
			}
			l.world.Push(all...)
		}
		for _, host := range leavesHosts {
			push(`"circuitBreakers": {"thresholds": [{"maxRequests": 2}]},`)
			l.forwards(t, host, "")
			release := l.hold(t, host, 2)
			l.overflows(t, host, `in the cluster "near `+host+`" the limit of requests is reached: 2 of 2 are in flight`,
				`cluster "all `+host+`": cluster "near `+host+`": `, "too many requests")
			e := l.explain(t, host)
			if near := e.Cluster.Leaves[0]; near.Limits.Requests.Used != 2 || near.Limits.Requests.Max != 2 || near.Refuses == "" || e.Cluster.Leaves[1].Refuses != "" {
				t.Errorf("%s: the leaves are %+v", host, e.Cluster.Leaves)
			}
			release()
			l.forwards(t, host, "")

			// Who waits for a connection is refused; who finds one is not.
			push(`"circuitBreakers": {"thresholds": [{"maxPendingRequests": 0}]},`)
			l.forwards(t, host, "0 of 0 wait for a connection: the call fails if")
		}
	})
}

func TestExplainKnowsThatNobodyMayWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		var all []proto.Message
		for _, host := range leavesHosts {
			all = append(all, aggregated(host)...)
			all = append(all, leafCluster("all "+host, `"circuitBreakers": {"thresholds": [{"maxPendingRequests": 0}]},`, []string{leafEndpoint(l.addresses(t, host)[0], "HEALTHY")}))
		}
		l.world.Push(all...)
		for _, host := range leavesHosts {
			l.overflows(t, host, "the limit of pending requests is reached: 0 of 0 wait for a connection, and there is none", "too many pending requests")
		}
	})
}

func TestExplainKnowsTheBreakerOfTheCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLeavesWorld(t)
		l.world.Apply(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations: {inboard.breaker: "{failureRatio: 0.5, minimumRequests: 1, openTime: 1m, halfOpenProbes: 1}"}
spec: {host: payment.shop.svc.cluster.local}
`)
		for _, host := range leavesHosts {
			l.forwards(t, host, "")
			time.Sleep(10 * time.Second) // fake: the success is forgotten
			l.fail(t, host)
			l.overflows(t, host, "the error-rate breaker is open", "error-rate breaker is open")
			if e := l.explain(t, host); e.Cluster.Breaker != "open" {
				t.Errorf("%s: the breaker is %s", host, e.Cluster.Breaker)
			}
			time.Sleep(61 * time.Second) // fake
			if e := l.explain(t, host); e.Cluster.Breaker != "half-open" {
				t.Errorf("%s: the breaker is %s", host, e.Cluster.Breaker)
			}
			release := l.hold(t, host, 1)
			l.overflows(t, host, "half-open, and its probes are under way", "half-open, and its probes are under way")
			release()
			l.forwards(t, host, "")
		}
	})
}

// fail makes a call that the endpoint fails.
func (l *leavesWorld) fail(t *testing.T, host string) {
	if strings.HasSuffix(host, ":80") {
		req := request(t, http.MethodGet, "http://payment.shop/")
		req.Header.Set(failHeader, "yes")
		if resp, err := l.customer.Transport().RoundTrip(req); err == nil {
			resp.Body.Close()
		}
		return
	}
	_ = l.channel.Invoke(metadata.AppendToOutgoingContext(t.Context(), failHeader, "yes"), explainPaths[0], &grpc_testing.Empty{}, &grpc_testing.Empty{})
}

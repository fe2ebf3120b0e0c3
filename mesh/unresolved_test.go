package mesh_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
)

// groundAggregate is a cluster that consists of others.
func groundAggregate(name string, of ...string) *clusterv3.Cluster {
	return parsed(&clusterv3.Cluster{}, `{"name": %q, "lbPolicy": "CLUSTER_PROVIDED", "clusterType": {"name": "envoy.clusters.aggregate",
		"typedConfig": {"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters": ["%s"]}}}`,
		name, strings.Join(of, `", "`))
}

// A good cluster becomes something that cannot be resolved. No call fails, it is told,
// and the version that mends it takes over.
func TestX71_ATreeThatCannotBeResolvedFailsNoCall(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		trees []proto.Message
		told  string
	}{
		{"itself", []proto.Message{groundAggregate(groundHTTP, groundHTTP), groundAggregate(groundGRPC, groundGRPC)}, "is the cluster itself"},
		{"a loop", []proto.Message{
			groundAggregate(groundHTTP, "two"), groundAggregate(groundGRPC, "two"), groundAggregate("two", groundHTTP, groundGRPC),
		}, "is part of itself"},
		{"of nothing", []proto.Message{groundAggregate(groundHTTP, "gone"), groundAggregate(groundGRPC, "gone")}, "none of the clusters"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, api := range []bootstrap.APIType{bootstrap.APIDelta, bootstrap.APISotW} {
				t.Run(api.String(), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { unresolved(t, api, test.trees, test.told) })
				})
			}
		})
	}
}

func unresolved(t *testing.T, api bootstrap.APIType, trees []proto.Message, want string) {
	var log lockedLog
	g := newGroundWith(t, []mesh.Option{mesh.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))},
		func(c *bootstrap.Config) { c.Servers[0].API = api })
	g.payment(1)
	g.payment(2)
	g.plane.Set(tree(1)...)
	g.works()
	calls := g.traffic(10)
	g.plane.Set(trees...)
	time.Sleep(30 * time.Second)
	if told := log.String(); !strings.Contains(told, want) {
		t.Errorf("log %q, want %q", told, want)
	}
	g.plane.Set(groundEndpoints(2)...) // they are in force still
	time.Sleep(5 * time.Second)
	g.each(time.Second, func(protocol, payment string, _ time.Duration, err error) {
		if err != nil || payment != "2" {
			t.Errorf("%s: answered by %q, %v, want the newest endpoints", protocol, payment, err)
		}
	})
	g.plane.Set(groundCluster(groundHTTP), groundCluster(groundGRPC)) // mended
	time.Sleep(5 * time.Second)
	calls.report(390)
	g.works()
}

// lockedLog is a log that several goroutines write.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

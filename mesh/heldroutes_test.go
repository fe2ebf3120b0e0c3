package mesh_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
)

// movedRoutes sends all calls but those to /blocked, which it answers, to a cluster.
func movedRoutes(name, cluster string) *routev3.RouteConfiguration {
	return parsed(&routev3.RouteConfiguration{}, `{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
		{"match": {"prefix": "/blocked"}, "directResponse": {"status": 403}},
		{"match": {"prefix": "/"}, "route": {"cluster": %q}}]}]}`, name, cluster)
}

// Routes move to a cluster that cannot be used. No call fails: they go where they went,
// until it can; and what else the newer table says is in force at once.
func TestX67_RoutesThatMoveToABrokenClusterFailNoCall(t *testing.T) {
	t.Parallel()
	refused := groundCluster("c")
	refused.LbPolicy = 6 // CLUSTER_PROVIDED
	bad := assignment("c", groundHTTP, 1, 2)
	bad.Endpoints[0].Priority = 3 // without those before it
	for _, test := range []struct {
		name   string
		broken []proto.Message
	}{
		{"that does not exist", nil},
		{"that is refused", []proto.Message{refused}},
		{"without endpoints", []proto.Message{groundCluster("c")}},
		{"whose endpoints are refused", []proto.Message{groundCluster("c"), bad}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, api := range []bootstrap.APIType{bootstrap.APIDelta, bootstrap.APISotW} {
				t.Run(api.String(), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { moveToBroken(t, api, test.broken) })
				})
			}
		})
	}
}

func moveToBroken(t *testing.T, api bootstrap.APIType, broken []proto.Message) {
	var log lockedLog
	g := newGroundWith(t, []mesh.Option{mesh.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))},
		func(c *bootstrap.Config) { c.Servers[0].API = api })
	g.payment(1)
	g.payment(2)
	g.plane.Set(tree(1)...)
	g.works()
	calls := g.traffic(10)
	g.plane.Set(broken...)
	g.plane.Set(movedRoutes(groundHTTP, "c"), movedRoutes(groundGRPC, "c"))
	time.Sleep(30 * time.Second)
	if got := log.String(); !strings.Contains(got, "configuration that cannot be used is held back") || !strings.Contains(got, "forwards as before") {
		t.Errorf("log %q", got)
	}
	if got := g.status("/blocked"); got != http.StatusForbidden {
		t.Errorf("/blocked has the status %d, want what the newer table says", got)
	}
	// Over HTTP one port, over gRPC another: mended one after the other.
	for _, port := range []string{groundHTTP, groundGRPC} {
		g.plane.Set(groundCluster("c2-"+port), assignment("c2-"+port, port, 1, 2), movedRoutes(port, "c2-"+port))
	}
	time.Sleep(time.Second)
	g.each(time.Second, func(protocol, payment string, _ time.Duration, err error) {
		if err != nil || payment != "2" {
			t.Errorf("%s: answered by %q, %v, want the new cluster", protocol, payment, err)
		}
	})
	calls.report(300)
	if got := strings.Count(log.String(), "no configuration is held back any more"); got != 2 {
		t.Errorf("%d times it was told that all is well, want once for each target", got)
	}
}

// status is that of a request for a path.
func (g *ground) status(path string) int {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+groundHost+":"+groundHTTP+path, http.NoBody)
	if err != nil {
		g.t.Fatal(err)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Errorf("%s: %v", path, err)
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

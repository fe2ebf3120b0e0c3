package mesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// TestBL9_AHealthThatComesBackStartsNothing: a control plane says that a payment is not
// healthy, and later that it is. As in Envoy, only joining and active health checks make
// it warm up.
func TestBL9_AHealthThatComesBackStartsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const fields = `"lbPolicy": "ROUND_ROBIN", "roundRobinLbConfig": {"slowStartConfig": {"slowStartWindow": "60s"}}`
		g := balancingGround(t, fields, 2)
		g.counting(2, nil)
		tell := func(health string) {
			var all []proto.Message
			for _, port := range []string{groundHTTP, groundGRPC} {
				endpoints := assignment(port, port, 1, 1, 2)
				proto.Merge(endpoints.GetEndpoints()[0].GetLbEndpoints()[0], parsed(&endpointv3.LbEndpoint{}, `{"healthStatus": %q}`, health))
				all = append(all, groundListener(port), groundRoutes(port, port), balancedCluster(port, fields), endpoints)
			}
			g.plane.Set(all...)
			synctest.Wait()
		}
		tell("UNHEALTHY")
		g.both(2)
		time.Sleep(2 * time.Minute) // the other one is not new any more
		tell("HEALTHY")
		if http, grpc := g.both(100); http["1"] > 30 || grpc["1"] > 30 { // a tenth of a share: 9 of 100
			t.Errorf("healthy for the first time, calls went %v and %v, want a few to the payment that is new", http, grpc)
		}
		time.Sleep(2 * time.Minute)
		tell("UNHEALTHY")
		if http, grpc := g.both(10); http["1"]+grpc["1"] != 0 {
			t.Errorf("a payment that is not healthy got calls: %v, %v", http, grpc)
		}
		time.Sleep(time.Minute)
		tell("HEALTHY")
		if http, grpc := g.both(20); http["1"] != 10 || grpc["1"] != 10 {
			t.Errorf("healthy again, calls went %v and %v, want evenly at once", http, grpc)
		}
	})
}

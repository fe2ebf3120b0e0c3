package mesh_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// What the control plane says about one resource is as little the caller's status as
// what it says about the stream.
func TestX52_NoStatusOfAResourceReachesTheCaller(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.OK, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted,
		codes.OutOfRange, codes.DataLoss, codes.PermissionDenied, codes.Unauthenticated, codes.Internal,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &ground{t: t, network: newGroundNetwork()}
				server := adstest.Start(t, adstest.Config{Network: g.network})
				config := &bootstrap.Config{Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}}
				config.Servers[0].API = bootstrap.APISotW
				g.join(config)
				var calling sync.WaitGroup
				calling.Go(func() {
					g.each(time.Minute, func(protocol, _ string, took time.Duration, err error) {
						// A call is held until its time is over (X66), unless the control plane has
						// said that it gets nothing (gRFC A88).
						want, wait := codes.DeadlineExceeded, time.Minute
						if code == codes.NotFound || code == codes.PermissionDenied {
							want, wait = codes.Unavailable, 0
						}
						if codeOf(err) != want || took != wait || !strings.Contains(err.Error(), "because") {
							t.Errorf("%s: code %v of %v after %v", protocol, codeOf(err), err, took)
						}
					})
				})
				stream := server.Accept()
				synctest.Wait()
				stream.Pending()
				response := adstest.Response(listenerURL, "v1", "n1")
				for _, port := range []string{groundHTTP, groundGRPC} {
					response.ResourceErrors = append(response.ResourceErrors, &discoveryv3.ResourceError{
						ResourceName: &discoveryv3.ResourceName{Name: groundHost + ":" + port},
						ErrorDetail:  &statuspb.Status{Code: int32(code), Message: "because"},
					})
				}
				stream.Send(response)
				calling.Wait()
			})
		})
	}
}

func TestX63_CallsFailWithTheReasonOfWhatWasDropped(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		for _, port := range []string{groundHTTP, groundGRPC} {
			g.plane.Set(parsed(groundCluster(port), `{"name": %q, "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}, "connectTimeout": "-1s"}`, port))
		}
		synctest.Wait()
		g.each(time.Second, func(protocol, _ string, took time.Duration, err error) {
			if codeOf(err) != codes.Unavailable || took > 0 || !strings.Contains(err.Error(), "connect_timeout") || !strings.Contains(err.Error(), `"customer-1"`) {
				g.t.Errorf("%s: code %v of %v after %v", protocol, codeOf(err), err, took)
			}
		})
		g.plane.Set(tree(1)...)
		synctest.Wait()
		g.works()
	}, func(c *bootstrap.Config) {
		c.Servers[0].Features = append(c.Servers[0].Features, bootstrap.FeatureFailOnDataErrors)
	})
}

// A version that is rejected while there is no other fails calls at once with its
// reason (gRFC A88), and none while there is: that one stays in force.
func TestX49_X51_ARejectedFirstVersionFailsCallsAtOnce(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		broken := func(port string) *routev3.RouteConfiguration {
			return parsed(&routev3.RouteConfiguration{}, `{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [
				{"match": {"prefix": "/"}, "route": {"cluster": %q, "timeout": "-1s"}}]}]}`, port, port)
		}
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.plane.Set(broken(groundHTTP), broken(groundGRPC))
		g.each(time.Minute, func(protocol, _ string, took time.Duration, err error) {
			if codeOf(err) != codes.Unavailable || took > time.Second || !strings.Contains(err.Error(), "timeout") {
				g.t.Errorf("%s: code %v of %v after %v", protocol, codeOf(err), err, took)
			}
		})
		g.plane.Set(tree(1)...)
		synctest.Wait()
		g.works()
		g.plane.Set(broken(groundHTTP), broken(groundGRPC))
		synctest.Wait()
		g.works()
	})
}

package xds_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
)

// askStatus asks the client status discovery service of a source over gRPC.
func askStatus(t *testing.T, cp *controlPlane, source *xds.Source) statusv3.ClientStatusDiscoveryServiceClient {
	t.Helper()
	ln, err := cp.network.Listen("csds.test")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	source.RegisterClientStatus(server)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	conn, err := grpc.NewClient("passthrough:///csds.test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return cp.network.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-done
	})
	return statusv3.NewClientStatusDiscoveryServiceClient(conn)
}

func inlineListenerOf(name string, routes string) *listenerv3.Listener {
	return parse(&listenerv3.Listener{}, `{"name": %q, "apiListener": {"apiListener": {%s, "routeConfig": %s, %s}}}`,
		name, connectionManager, routes, httpFilters)
}

func TestX65_TheClientStatusHasEveryState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		source := cp.source()
		service := askStatus(t, cp, source)
		for _, name := range []string{"good:1", "bad:1", "gone:1", "refused:1", "waiting:1"} {
			source.WatchTarget(name, func(discovery.Update[*discovery.Target]) {})
		}
		stream := cp.server.Accept()
		synctest.Wait()
		stream.Pending()
		const noClusters = `{"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "directResponse": {"status": 204}}]}]}`
		bad := inlineListenerOf("bad:1", `{"virtualHosts": [{"name": "h", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "directResponse": {"status": 9}}]}]}`)
		stream.Send(adstest.Response(listenerURL, "v1", "n1", inlineListenerOf("good:1", noClusters), inlineListenerOf("gone:1", noClusters)))
		time.Sleep(time.Second)
		// "gone" is left out, "refused" has an error of the server, "bad" comes in a
		// later response, which is rejected.
		second := adstest.Response(listenerURL, "v2", "n2", inlineListenerOf("good:1", noClusters))
		second.ResourceErrors = []*discoveryv3.ResourceError{{
			ResourceName: &discoveryv3.ResourceName{Name: "refused:1"},
			ErrorDetail:  &statuspb.Status{Code: int32(codes.PermissionDenied), Message: "not yours"},
		}}
		stream.Send(second)
		time.Sleep(time.Second)
		stream.Send(adstest.Response(listenerURL, "v3", "n3", bad))
		synctest.Wait()

		response, err := service.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		config := response.GetConfig()[0]
		if config.GetNode().GetId() != "web-1" {
			t.Errorf("node %v", config.GetNode())
		}
		got := make(map[string]*statusv3.ClientConfig_GenericXdsConfig)
		for _, one := range config.GetGenericXdsConfigs() {
			got[one.GetName()] = one
		}
		for name, want := range map[string]struct {
			state, version, rejected, details string
			contents, failed                  bool
		}{
			"good:1":    {"ACKED", "v2", "", "", true, false},
			"bad:1":     {"NACKED", "", "v3", "status", false, true},
			"gone:1":    {"DOES_NOT_EXIST", "v1", "", "its last version stays in force", true, false},
			"refused:1": {"RECEIVED_ERROR", "", "", "not yours", false, false},
			"waiting:1": {"REQUESTED", "", "", "", false, false},
		} {
			one := got[name]
			failure := one.GetErrorState()
			if one.GetClientStatus().String() != want.state || one.GetVersionInfo() != want.version || one.GetTypeUrl() != listenerURL ||
				failure.GetVersionInfo() != want.rejected || !strings.Contains(failure.GetDetails(), want.details) ||
				(failure == nil) != (want.details == "") || (one.GetXdsConfig() != nil) != want.contents ||
				(failure.GetFailedConfiguration() != nil) != want.failed || one.GetLastUpdated() == nil {
				t.Errorf("%s is %v, want %+v", name, one, want)
			}
			if failure != nil && failure.GetLastUpdateAttempt().AsTime().IsZero() {
				t.Errorf("%s failed at no time", name)
			}
		}
		contents := new(listenerv3.Listener)
		if err := got["good:1"].GetXdsConfig().UnmarshalTo(contents); err != nil || contents.GetName() != "good:1" {
			t.Errorf("contents %v, %v", contents, err)
		}

		bare, err := service.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{ExcludeResourceContents: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range bare.GetConfig()[0].GetGenericXdsConfigs() {
			if one.GetXdsConfig() != nil || one.GetErrorState().GetFailedConfiguration() != nil {
				t.Errorf("contents although they were excluded: %v", one)
			}
		}
		if _, err := service.FetchClientStatus(t.Context(), &statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{}}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("node matchers: %v", err)
		}
		many, err := service.StreamClientStatus(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := many.Send(&statusv3.ClientStatusRequest{}); err != nil {
				t.Fatal(err)
			}
			if again, err := many.Recv(); err != nil || !proto.Equal(again, response) {
				t.Errorf("stream: %v, %v", again, err)
			}
		}
		if err := many.CloseSend(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestX65_TheClientStatusHasTimeouts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		source := cp.source(bootstrap.FeatureResourceTimerIsTransientError)
		watchTarget(source)
		cp.server.Accept()
		time.Sleep(31 * time.Second)
		data, err := source.ClientStatusJSON()
		if err != nil || !strings.Contains(string(data), `"TIMEOUT"`) || !strings.Contains(string(data), destination) {
			t.Errorf("%s, %v", data, err)
		}
	})
}

func TestX65_V55_TheClientStatusHasNoSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		table := parse(&routev3.RouteConfiguration{}, `{"name": "r", "virtualHosts": [{"name": "h", "domains": ["*"],
			"requestHeadersToAdd": [{"header": {"key": "authorization", "value": "s3cret 1"}}, {"header": {"key": "x-plain", "value": "shown"}}],
			"routes": [{"match": {"prefix": "/", "headers": [{"name": "x-api-key", "stringMatch": {"exact": "s3cret 2"}}],
				"queryParameters": [{"name": "token", "stringMatch": {"exact": "s3cret 3"}}]}, "route": {"cluster": "a"}}]}]}`)
		secure := parse(&clusterv3.Cluster{}, `{"name": "a", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}},
			"metadata": {"filterMetadata": {"x": {"password": "s3cret 4", "inner": {"list": ["plain"]}}}},
			"transportSocket": {"name": "envoy.transport_sockets.tls", "typedConfig": {
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
				"commonTlsContext": {"tlsCertificates": [{"certificateChain": {"inlineString": "chain"},
					"privateKey": {"inlineString": "s3cret 5"}, "password": {"inlineString": "s3cret 6"}}]}}}}`)
		cp.set(apiListener("r"), table, secure)
		source := cp.source()
		watchTarget(source)
		cp.accept()
		data, err := source.ClientStatusJSON()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"authorization", "shown", "x-api-key", "[redacted]", "privateKey"} {
			if !strings.Contains(string(data), want) {
				t.Errorf("%q is not in %s", want, data)
			}
		}
		if strings.Contains(string(data), "s3cret") {
			t.Errorf("a secret is in %s", data)
		}
	})
}

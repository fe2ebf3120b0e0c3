package xds_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
)

const typePrefix = "type.googleapis.com/envoy.config."

const (
	listenerURL = typePrefix + "listener.v3.Listener"
	routeURL    = typePrefix + "route.v3.RouteConfiguration"
	clusterURL  = typePrefix + "cluster.v3.Cluster"
	endpointURL = typePrefix + "endpoint.v3.ClusterLoadAssignment"
)

const destination = "payment:8080"

// controlPlane answers a source with the resources that the test sets, in the
// state of the world. It runs on the test's goroutine, when run is called.
type controlPlane struct {
	t       *testing.T
	network *memnet.Network
	server  *adstest.Server

	resources map[string]map[string]proto.Message // by type URL and name
	stream    *adstest.Stream
	asked     map[string][]string // by type URL
	requests  []*adstest.Request
	version   int
}

func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	network := new(memnet.Network)
	return &controlPlane{
		t:       t,
		network: network,
		server:  adstest.Start(t, adstest.Config{Network: network, RefuseDelta: true}),
		resources: map[string]map[string]proto.Message{
			listenerURL: {}, routeURL: {}, clusterURL: {}, endpointURL: {},
		},
	}
}

func nameOf(m proto.Message) (typeURL, name string) {
	switch m := m.(type) {
	case *listenerv3.Listener:
		return listenerURL, m.GetName()
	case *routev3.RouteConfiguration:
		return routeURL, m.GetName()
	case *clusterv3.Cluster:
		return clusterURL, m.GetName()
	case *endpointv3.ClusterLoadAssignment:
		return endpointURL, m.GetClusterName()
	}
	panic(fmt.Sprintf("a resource of type %T", m))
}

// set changes resources and tells the client; it returns when the client has
// nothing more to do.
func (c *controlPlane) set(resources ...proto.Message) {
	c.t.Helper()
	changed := map[string]bool{}
	for _, m := range resources {
		url, name := nameOf(m)
		c.resources[url][name] = m
		changed[url] = true
	}
	c.push(slices.Sorted(maps.Keys(changed))...)
}

// remove removes a resource and tells the client.
func (c *controlPlane) remove(url, name string) {
	c.t.Helper()
	delete(c.resources[url], name)
	c.push(url)
}

func (c *controlPlane) push(urls ...string) {
	c.t.Helper()
	if c.stream != nil {
		for _, url := range urls {
			c.answer(url)
		}
	}
	c.run()
}

// answer sends everything of a type that was asked for.
func (c *controlPlane) answer(url string) {
	if len(c.asked[url]) == 0 {
		return
	}
	c.version++
	version := strconv.Itoa(c.version)
	response := adstest.Response(url, version, "nonce-"+version)
	for _, name := range c.asked[url] {
		if m := c.resources[url][name]; m != nil {
			response.Resources = append(response.Resources, adstest.Any(m))
		}
	}
	if len(response.GetResources()) > 0 || url == listenerURL || url == clusterURL {
		c.stream.Send(response)
	}
}

// accept waits for the client's stream and answers it.
func (c *controlPlane) accept() {
	c.t.Helper()
	c.stream = c.server.Accept()
	if c.stream.Delta {
		c.t.Fatal("the client opened a delta stream")
	}
	c.asked = map[string][]string{}
	c.run()
}

// run answers requests until no more come.
func (c *controlPlane) run() {
	c.t.Helper()
	for c.stream != nil {
		synctest.Wait()
		requests := c.stream.Pending()
		if len(requests) == 0 {
			return
		}
		for _, r := range requests {
			c.requests = append(c.requests, r)
			slices.Sort(r.Names)
			if !slices.Equal(r.Names, c.asked[r.TypeURL]) {
				c.asked[r.TypeURL] = r.Names
				c.answer(r.TypeURL)
			}
		}
	}
}

// stop kills the control plane.
func (c *controlPlane) stop() {
	c.server.Stop()
	c.stream = nil
	synctest.Wait()
}

// nacks returns the errors that the client sent, joined.
func (c *controlPlane) nacks() string {
	var details []string
	for _, r := range c.requests {
		if r.Error != nil {
			details = append(details, r.Error.GetMessage())
		}
	}
	return strings.Join(details, "\n")
}

// config returns a bootstrap for the control plane.
func (c *controlPlane) config(features ...string) *bootstrap.Config {
	return &bootstrap.Config{
		Servers: []bootstrap.Server{{
			URI:          "passthrough:///xds.test",
			ChannelCreds: bootstrap.Credentials{Type: "insecure"},
			Features:     features,
			DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				return c.network.DialContext(ctx, "tcp", address)
			})},
		}},
		Node:                   bootstrap.Node{ID: "web-1", Cluster: "web", Metadata: map[string]any{"NAMESPACE": "shop"}},
		ServerListenerTemplate: "inbound/%s",
	}
}

// source returns a source that is closed when the test ends.
func (c *controlPlane) source(features ...string) *xds.Source {
	c.t.Helper()
	s, err := xds.NewSource(c.config(features...), xds.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Errorf("close: %v", err)
		}
	})
	return s
}

// recorder keeps what was published. The source writes on its own goroutine.
type recorder[T any] struct {
	mu      sync.Mutex
	updates []discovery.Update[T] // guarded by mu
}

func (r *recorder[T]) notify(u discovery.Update[T]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.updates = append(r.updates, u)
}

// take returns what was published since the last take.
func (r *recorder[T]) take() []discovery.Update[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.updates
	r.updates = nil
	return taken
}

// last returns the last of the updates since the last take. There must be one.
func (r *recorder[T]) last(t *testing.T) discovery.Update[T] {
	t.Helper()
	updates := r.take()
	if len(updates) == 0 {
		t.Fatal("nothing was published")
	}
	return updates[len(updates)-1]
}

func (r *recorder[T]) none(t *testing.T) {
	t.Helper()
	if updates := r.take(); len(updates) > 0 {
		t.Fatalf("%d updates were published, want none: %+v", len(updates), updates)
	}
}

func watchTarget(s *xds.Source) *recorder[*discovery.Target] {
	r := &recorder[*discovery.Target]{}
	s.WatchTarget(destination, r.notify)
	return r
}

// parse returns a resource in protobuf's JSON.
func parse[M proto.Message](m M, text string, args ...any) M {
	if err := protojson.Unmarshal(fmt.Appendf(nil, text, args...), m); err != nil {
		panic(err)
	}
	return m
}

const httpFilters = `"httpFilters": [{"name": "router", "typedConfig": {
	"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]`

const connectionManager = `"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"`

func apiListener(routeName string) *listenerv3.Listener {
	return parse(&listenerv3.Listener{}, `{"name": %q, "apiListener": {"apiListener": {%s,
		"rds": {"routeConfigName": %q, "configSource": {"ads": {}}}, %s}}}`, destination, connectionManager, routeName, httpFilters)
}

func inlineListener(clusters ...string) *listenerv3.Listener {
	return parse(&listenerv3.Listener{}, `{"name": %q, "apiListener": {"apiListener": {%s,
		"routeConfig": %s, %s}}}`, destination, connectionManager, routesJSON("", clusters...), httpFilters)
}

func routesJSON(name string, clusters ...string) string {
	var routes []string
	for _, c := range clusters {
		routes = append(routes, fmt.Sprintf(`{"match": {"prefix": "/%s"}, "route": {"cluster": %q}}`, c, c))
	}
	return fmt.Sprintf(`{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"], "routes": [%s]}]}`, name, strings.Join(routes, ","))
}

func routes(name string, clusters ...string) *routev3.RouteConfiguration {
	return parse(&routev3.RouteConfiguration{}, "%s", routesJSON(name, clusters...))
}

func cluster(name string) *clusterv3.Cluster {
	return parse(&clusterv3.Cluster{}, `{"name": %q, "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}`, name)
}

// endpoints returns an assignment with one endpoint, or none for port 0.
func endpoints(name string, port int) *endpointv3.ClusterLoadAssignment {
	if port == 0 {
		return &endpointv3.ClusterLoadAssignment{ClusterName: name}
	}
	return parse(&endpointv3.ClusterLoadAssignment{}, `{"clusterName": %q, "endpoints": [{"locality": {"zone": "z"}, "loadBalancingWeight": 1,
		"lbEndpoints": [{"endpoint": {"address": {"socketAddress": {"address": "10.0.0.1", "portValue": %d}}}}]}]}`, name, port)
}

func serverListener(routeName string) *listenerv3.Listener {
	return parse(&listenerv3.Listener{}, `{"name": "inbound/0.0.0.0:8080",
		"address": {"socketAddress": {"address": "0.0.0.0", "portValue": 8080}},
		"defaultFilterChain": {"name": "plaintext", "filters": [{"name": "hcm", "typedConfig": {%s,
			"rds": {"routeConfigName": %q, "configSource": {"ads": {}}}, %s}}]}}`, connectionManager, routeName, httpFilters)
}

func serverRoutes(name string) *routev3.RouteConfiguration {
	return parse(&routev3.RouteConfiguration{}, `{"name": %q, "virtualHosts": [{"name": "h", "domains": ["*"],
		"routes": [{"match": {"prefix": "/"}, "nonForwardingAction": {}}]}]}`, name)
}

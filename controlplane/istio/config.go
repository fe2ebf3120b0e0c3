package istio

import (
	"net"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Options are what the documents do not say.
type Options struct {
	// TrustDomain is the trust domain of every SPIFFE ID; "" means
	// "cluster.local". It must be a valid one.
	TrustDomain string
	// RootNamespace is where a PeerAuthentication without a selector is for
	// the whole mesh; "" means "istio-system".
	RootNamespace string
}

// Node is who asks for resources.
type Node struct {
	// ID, Cluster and Locality say who asks. No resource depends on them so
	// far.
	ID       string
	Cluster  string
	Locality Locality
	// ServiceAccount says, for a node without Labels, which endpoints it may be.
	ServiceAccount string
	// Namespace decides which names without a namespace the node can use, and
	// with Labels which PeerAuthentication its listeners obey. A node without one
	// obeys the strictest of all that it could be subject to.
	Namespace string
	Labels    map[string]string
}

// Locality is where a node or an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// inboundPrefix begins the names of the listeners that Istio's proxyless
// servers ask for, by server_listener_resource_name_template of the bootstrap.
const inboundPrefix = "xds.istio.io/grpc/lds/inbound/"

// Config is a valid set of documents, translated. It is immutable and safe for
// concurrent use.
type Config struct {
	services map[string]*service
	// apiListeners are the HTTP connection managers by RouteConfiguration
	// name: the part of a listener that does not depend on how it was asked for.
	apiListeners map[string]*anypb.Any
	// nearRoutes are for nodes of the namespace of the service, who can leave
	// it out of its name; farRoutes are for all others.
	nearRoutes  map[string]*routev3.RouteConfiguration
	farRoutes   map[string]*routev3.RouteConfiguration
	clusters    map[string]*clusterv3.Cluster
	assignments map[string]*endpointv3.ClusterLoadAssignment
	inbound     map[mtlsMode]*inboundListener
	peers       *peerPolicies
	workloads   workloads

	listenerNames, routeNames, clusterNames []string
}

// Parse reads all documents of all files and validates them together. It
// returns either a Config and no problem, or no Config and every problem, in
// the order of the files. No document at all is a valid Config without
// resources.
func Parse(files []File, opts Options) (*Config, []Problem) {
	if opts.TrustDomain == "" {
		opts.TrustDomain = "cluster.local"
	}
	if opts.RootNamespace == "" {
		opts.RootNamespace = "istio-system"
	}
	rep := newReporter(files)
	var objects []*object
	for _, f := range files {
		objects = append(objects, readFile(rep, f)...)
	}
	reg := newRegistry(rep, opts, objects)
	config := reg.build()
	if problems := rep.sorted(); len(problems) > 0 {
		return nil, problems
	}
	return config, nil
}

// Names lists every resource of a type that a node can ask for without knowing
// its name, sorted: what a wildcard subscription gets. Listeners are listed
// under their full host names only, and the node's own (inbound) listeners are
// not listed, because they exist for any address. An unknown type has none.
// The caller must not change the result.
func (c *Config) Names(_ Node, typeURL string) []string {
	switch typeURL {
	case resource.ListenerType:
		return c.listenerNames
	case resource.RouteType:
		return c.routeNames
	case resource.ClusterType, resource.EndpointType:
		return c.clusterNames
	}
	return nil
}

// Resource returns the resource that node gets for a name, or false if there
// is none: an unknown name, or an unknown type. typeURL is
// "type.googleapis.com/envoy.config.listener.v3.Listener", or that of a
// RouteConfiguration, Cluster or ClusterLoadAssignment. A listener is found
// under "HOST:PORT", where the host may be shortened as the resolver of a pod
// in the node's namespace allows. The message is shared: it must not be
// changed.
func (c *Config) Resource(node Node, typeURL, name string) (proto.Message, bool) {
	switch typeURL {
	case resource.ListenerType:
		if address, ok := strings.CutPrefix(name, inboundPrefix); ok {
			return c.inboundResource(node, name, address)
		}
		return c.listenerResource(node, name)
	case resource.RouteType:
		return c.routeResource(node, name)
	case resource.ClusterType:
		m, ok := c.clusters[name]
		return found(m, ok)
	case resource.EndpointType:
		m, ok := c.assignments[name]
		return found(m, ok)
	}
	return nil, false
}

// found keeps a missing message from becoming a non-nil interface.
func found[M proto.Message](m M, ok bool) (proto.Message, bool) {
	if !ok {
		return nil, false
	}
	return m, true
}

func (c *Config) routeResource(node Node, name string) (proto.Message, bool) {
	host := name[strings.LastIndexByte(name, '|')+1:]
	if _, namespace, ok := serviceName(host); ok && namespace == node.Namespace {
		m, ok := c.nearRoutes[name]
		return found(m, ok)
	}
	m, ok := c.farRoutes[name]
	return found(m, ok)
}

func (c *Config) listenerResource(node Node, name string) (proto.Message, bool) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil, false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(number, 10) != port {
		return nil, false
	}
	if _, ok := c.services[host]; !ok {
		host = searchHost(host, node.Namespace)
	}
	hcm, ok := c.apiListeners[clusterName(uint32(number), "", host)]
	if !ok {
		return nil, false
	}
	return apiListener(name, hcm), true
}

// clusterName is Istio's name of a cluster, of its endpoints and, with subset
// "", of the routes of a port.
func clusterName(port uint32, subset, host string) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "|" + subset + "|" + host
}

// hostPort is the name of a listener and of a virtual host.
func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

package istio

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Options are what the documents do not say. The ConfigMap "istio", in whose
// entry "mesh" Istio has the mesh configuration, may say it: then an option that
// is set too must be the same.
type Options struct {
	// TrustDomain is the trust domain of every SPIFFE ID; "" means
	// "cluster.local". It must be a valid one.
	TrustDomain string
	// TrustDomainAliases are other trust domains whose members are the same
	// workloads, as during a change of the name: whoever is expected or accepted
	// in TrustDomain is so in them. They must be valid, and share its roots.
	TrustDomainAliases []string
	// RootNamespace is where a PeerAuthentication without a selector and an
	// AuthorizationPolicy are for the whole mesh; "" means "istio-system".
	RootNamespace string
	// Check says why a client would reject a resource, given its type URL and the
	// resource as it is sent; nil is one that clients take. What it refuses is a
	// problem of the object that the resource is made of. It is called by
	// [Parse] only. The clients' own decoder is Check of package discovery/xds.
	// Without it only Envoy's constraints are looked at.
	Check func(typeURL string, value []byte) error
}

// Node is who asks for resources.
type Node struct {
	// ID says who asks. Of one of Istio's form, "sidecar~IP~POD.NAMESPACE~DOMAIN", the
	// address tells which workload it is that listens at all addresses.
	ID string
	// Cluster, Network and Locality say where the node runs, which decides about
	// the priorities of endpoints (localityLbSetting). A node without a Locality
	// has that of its label istio-locality.
	Cluster  string
	Network  string
	Locality Locality
	// Host is the machine that the node runs on, a node of Kubernetes
	// (trafficDistribution of a Service).
	Host string
	// ServiceAccount says, for a node without Labels, which endpoints it may be.
	ServiceAccount string
	// Namespace decides what the node sees (exportTo), which names without a
	// namespace it can use, and with Labels which routes it gets (sourceNamespace,
	// sourceLabels) and which PeerAuthentication its listeners obey. A node
	// without one sees what everybody sees and obeys the strictest
	// PeerAuthentication of all that it could be subject to.
	Namespace string
	Labels    map[string]string
	// NativeGRPC tells that the node is gRPC's own xDS, which does less than the
	// mesh and rejects what it does not do: it gets clusters and listeners in other
	// words where it has some.
	NativeGRPC bool
}

// Locality is where a node or an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// inboundPrefix begins the names of the listeners that Istio's proxyless
// servers ask for, by server_listener_resource_name_template of the bootstrap.
const inboundPrefix = "xds.istio.io/grpc/lds/inbound/"

// Config is a valid set of documents, translated. It is immutable and safe for
// concurrent use.
type Config struct {
	opts Options
	// managers are the HTTP connection managers by RouteConfiguration name: the
	// part of a listener that does not depend on how it was asked for.
	managers    map[string]byNamespace[*anypb.Any]
	routes      map[string]byNamespace[*routeTable]
	clusters    map[string]byNamespace[*clusterv3.Cluster]
	assignments map[string]byNamespace[*placement]
	// placed are the endpoints of those clusters of type DNS, which have them inside,
	// that differ by the node.
	placed  map[*clusterv3.Cluster]*placement
	inbound inboundTemplates
	natives natives
	peers   *peerPolicies
	// requestPolicies are the RequestAuthentications.
	requestPolicies []*requestPolicy
	workloads       workloads
	// streams are those of workloads behind ports of TCP.
	streams workloads
	// registered are all of them, by address.
	registered    registered
	warnings      []Problem
	routeStatus   []RouteStatus
	authorization *authorizationPolicies
	providers     map[string]*provider

	// names are what there is by namespace: for those that do not see what is
	// elsewhere, made when they ask.
	names map[string]func() *nameLists
}

// nameLists are the names of resources, sorted.
type nameLists struct{ listeners, routes, clusters []string }

// Parse reads all documents of all files and validates them together. It
// returns either a Config and no problem, or no Config and every problem, in
// the order of the files. No document at all is a valid Config without
// resources. What is allowed and hardly meant is in [Config.Warnings].
func Parse(files []File, opts Options) (*Config, []Problem) {
	review := Read(files, opts)
	return review.Config, review.Problems
}

// Review is what there is to say of a set of documents.
type Review struct {
	// Config is nil if there are problems.
	Config *Config
	// Problems are why the documents cannot be used, in the order of the files.
	Problems []Problem
	// Warnings are what is allowed in them and hardly what was meant. Beside
	// problems they are those that an object has by itself: what depends on other
	// objects may be right when these are.
	Warnings []Problem
	// Objects is how many objects were read.
	Objects int
}

// Read is [Parse] for who wants to know everything at once: the warnings too where
// there are problems.
func Read(files []File, opts Options) *Review {
	rep := newReporter(files)
	var objects []*object
	for _, f := range files {
		objects = append(objects, readFile(rep, f)...)
	}
	mesh, meshAt := applyMesh(rep, objects, &opts)
	if opts.TrustDomain == "" {
		opts.TrustDomain = "cluster.local"
	}
	if opts.RootNamespace == "" {
		opts.RootNamespace = "istio-system"
	}
	reg := newRegistry(rep, opts, objects)
	reg.addProviders(mesh, meshAt)
	config := reg.build()
	review := &Review{Warnings: rep.sortedWarnings(), Problems: rep.sorted(), Objects: len(objects)}
	if len(review.Problems) == 0 {
		config.warnings = review.Warnings
		review.Config = config
	}
	return review
}

// Warnings are what is allowed in the documents and hardly what was meant, in
// the order of the files. The caller must not change the result.
func (c *Config) Warnings() []Problem { return c.warnings }

// Routes says what became of every HTTPRoute and GRPCRoute, sorted. The caller
// must not change the result.
func (c *Config) Routes() []RouteStatus { return c.routeStatus }

// Names lists every resource of a type that a node can ask for without knowing
// its name, sorted: what a wildcard subscription gets. Listeners are listed
// under their full host names only, and the node's own (inbound) listeners are
// not listed, because they exist for any address. An unknown type has none.
// The caller must not change the result.
func (c *Config) Names(node Node, typeURL string) []string {
	lists, ok := c.names[node.Namespace]
	if !ok {
		lists = c.names[elsewhere]
	}
	switch typeURL {
	case resource.ListenerType:
		return lists().listeners
	case resource.RouteType:
		return lists().routes
	case resource.ClusterType, resource.EndpointType:
		return lists().clusters
	}
	return nil
}

// list prepares the lists of names, for each namespace that sees others than
// everybody else.
func (c *Config) list() {
	c.names = map[string]func() *nameLists{elsewhere: nil}
	noteSpaces(c.names, c.routes)
	noteSpaces(c.names, c.clusters)
	for namespace := range c.names {
		c.names[namespace] = sync.OnceValue(func() *nameLists { return c.namesIn(namespace) })
	}
}

// noteSpaces notes the namespaces for which something is there that is not there
// elsewhere, or the other way round.
func noteSpaces[T any](spaces map[string]func() *nameLists, index map[string]byNamespace[*T]) {
	for _, entry := range index {
		for _, own := range entry.own {
			if (own.answer == nil) != (entry.elsewhere == nil) {
				spaces[own.namespace] = nil
			}
		}
	}
}

func (c *Config) namesIn(namespace string) *nameLists {
	l := new(nameLists)
	for name, tables := range c.routes {
		if t := tables.in(namespace); t != nil {
			l.routes = append(l.routes, name)
			l.listeners = append(append(l.listeners, t.host), t.aliases...)
		}
	}
	for name, clusters := range c.clusters {
		if clusters.in(namespace) != nil {
			l.clusters = append(l.clusters, name)
		}
	}
	slices.Sort(l.listeners)
	slices.Sort(l.routes)
	slices.Sort(l.clusters)
	return l
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
		if table := c.routes[name].in(node.Namespace); table != nil {
			return table.forNode(node), true
		}
	case resource.ClusterType:
		cluster := c.clusters[name].in(node.Namespace)
		return found(c.placed[cluster].around(node, c.clusterFor(node, cluster)))
	case resource.EndpointType:
		if endpoints := c.assignments[name].in(node.Namespace); endpoints != nil {
			return endpoints.forNode(node), true
		}
	}
	return nil, false
}

// found keeps a missing message from becoming a non-nil interface.
func found[T any, M interface {
	*T
	proto.Message
}](m M) (proto.Message, bool) {
	if m == nil {
		return nil, false
	}
	return m, true
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
	for _, candidate := range []string{host, searchHost(host, node.Namespace)} {
		if manager := c.managers[clusterName(uint32(number), "", candidate)].in(node.Namespace); manager != nil {
			return apiListener(name, manager), true
		}
	}
	return nil, false
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

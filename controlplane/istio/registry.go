package istio

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"

	"github.com/inboardmesh/inboard/controlplane/istio/internal/gatewayapi"
)

// registry holds the decoded objects, found by what they are about.
type registry struct {
	rep  *reporter
	opts Options
	// services are those of a host, in the order of the files: at most one of a
	// namespace.
	services map[string][]*service
	// aliases are the other names of a host, aliasOf the host of such a name: Services
	// of the type ExternalName.
	aliases map[string][]string
	aliasOf map[string]string
	rules   hostIndex[*destinationRule]
	routes  hostIndex[*virtualService]
	// delegates are the VirtualServices without hosts, by "namespace/name".
	delegates map[string]*virtualService
	// hashing is true if any rule lets a cluster balance by hash.
	hashing bool
	peers   *peerPolicies
	// requestPolicies are the RequestAuthentications, in the order of the files.
	requestPolicies []*requestPolicy
	policies        *authorizationPolicies
	// inhabited are the namespaces of workloads, whether a service has them or not.
	inhabited map[string]bool
	// providers are those of external authorization, by name.
	providers map[string]*provider

	// All of a kind, in the order of the files.
	destinationRules []*destinationRule
	virtualServices  []*virtualService
	gatewayRoutes    []*gatewayRoute
	// foreignServices are the VirtualServices for gateways alone.
	foreignServices []*virtualService

	// attached are the references of gateway routes to a host.
	attached map[string][]*gatewayParent
	// unsaid are the clusters whose balancing no document chooses.
	unsaid map[*clusterv3.Cluster]struct{}
	// clientChecked tells that a listener of clients was checked.
	clientChecked bool
	// offers counts the hosts for which others were looked for.
	offers int
}

// newRegistry checks every object by itself and registers it. An object with
// problems is registered too, so that references to it are not reported as
// well.
func newRegistry(rep *reporter, opts Options, objects []*object) *registry {
	r := &registry{
		rep: rep, opts: opts,
		unsaid:    make(map[*clusterv3.Cluster]struct{}),
		services:  make(map[string][]*service),
		aliases:   make(map[string][]string),
		aliasOf:   make(map[string]string),
		rules:     newHostIndex[*destinationRule](),
		routes:    newHostIndex[*virtualService](),
		delegates: make(map[string]*virtualService),
		peers:     newPeerPolicies(opts.RootNamespace),
		policies:  newAuthorizationPolicies(opts),
		providers: make(map[string]*provider),
		inhabited: make(map[string]bool),
		attached:  make(map[string][]*gatewayParent),
	}
	objects = r.unique(objects)
	var workloads []*endpoint
	cluster := newKubernetes()
	for _, o := range objects {
		spec := at{rep: rep, obj: o}.field("spec")
		switch m := o.spec.(type) {
		case *networking.WorkloadEntry:
			r.inhabited[o.namespace] = true
			workloads = append(workloads, workloadEndpoint(o, m, spec))
		case *networking.DestinationRule:
			r.addRule(o, m, spec)
		case *networking.VirtualService:
			r.addVirtualService(o, m, spec)
		case *security.PeerAuthentication:
			r.peers.add(o, m, spec)
		case *security.RequestAuthentication:
			r.addRequestAuthentication(o, m, spec)
		case *security.AuthorizationPolicy:
			r.policies.add(o, m, spec)
		case *gatewayapi.HTTPRouteSpec:
			r.addHTTPRoute(o, m, spec)
		case *gatewayapi.GRPCRouteSpec:
			r.addGRPCRoute(o, m, spec)
		default:
			if o.kind == "Pod" {
				r.inhabited[o.namespace] = true
			}
			cluster.add(o)
		}
	}
	slices.SortStableFunc(workloads, func(a, b *endpoint) int {
		return cmp.Compare(a.at.obj.name, b.at.obj.name)
	})
	for _, o := range objects {
		if m, ok := o.spec.(*networking.ServiceEntry); ok {
			r.addService(o, m, at{rep: rep, obj: o}.field("spec"), workloads)
		}
	}
	r.addKubernetes(cluster)
	return r
}

// unique drops and reports objects whose kind, namespace and name were seen
// before: kubectl would let the later replace the earlier.
func (r *registry) unique(objects []*object) []*object {
	first := make(map[string]*object)
	kept := make([]*object, 0, len(objects))
	for _, o := range objects {
		if o.name != "" {
			if earlier, ok := first[o.title()]; ok {
				at{rep: r.rep, obj: o}.field("metadata").field("name").errorf(
					"is defined twice: first at %s:%d", earlier.file, earlier.root.line)
				continue
			}
			first[o.title()] = o
		}
		kept = append(kept, o)
	}
	return kept
}

// known reports whether a host that a document refers to exists, and reports
// a problem if it does not.
func (r *registry) known(host string, a at) bool {
	if len(r.services[host]) > 0 {
		return true
	}
	if target := r.aliasOf[host]; target != "" {
		a.errorf("%q is another name of %q, by its type ExternalName: write that one", host, target)
		return false
	}
	if r.rep.unread {
		return false // it may be in the file that cannot be read, which was reported
	}
	a.errorf("%s", r.unknown(host, a))
	return false
}

// has reports whether a host exists, also as another name of one.
func (r *registry) has(host string) bool {
	return len(r.services[host]) > 0 || r.aliasOf[host] != ""
}

// unknown says that a host does not exist, and what was likely meant.
func (r *registry) unknown(host string, a at) string {
	text := fmt.Sprintf("no Service or ServiceEntry has the host %q", host)
	if full := searchHost(host, ""); full != host && len(r.services[full]) > 0 {
		return text + fmt.Sprintf(": Istio completes only names without a dot, write %q", full)
	}
	if meta := (at{rep: a.rep, obj: a.obj}).field("metadata"); !meta.field("namespace").written() && strings.HasSuffix(host, "."+defaultNamespace+serviceSuffix) {
		text += ", to which the name is completed because metadata.namespace is missing"
	}
	return text + r.nearHosts(host)
}

// refers is [registry.known], for what can do without the host: if it is of another
// namespace, that it is not there is a warning, and consequence what becomes of that.
func (r *registry) refers(host, consequence string, a at) bool {
	if !a.ofOthers(host) || r.has(host) {
		return r.known(host, a)
	}
	a.warnf(lintUnknownHost, "no Service or ServiceEntry has the host %q%s: %s", host, r.nearHosts(host), consequence)
	return false
}

// ofOthers reports whether a host is named after another namespace than the object's. Its
// owner may remove it, or a part of it, whoever refers to it: that must not make the
// documents of everybody wrong.
func (a at) ofOthers(host string) bool {
	_, home, ok := serviceName(host)
	return ok && home != a.obj.namespace
}

// wrong reports a reference to a part of a host that is not there: a problem, unless
// the host is another namespace's.
func (a at) wrong(host, consequence, format string, args ...any) {
	if a.ofOthers(host) {
		a.warnf(lintUnknownHost, "%s: %s", fmt.Sprintf(format, args...), consequence)
		return
	}
	a.errorf(format, args...)
}

// What becomes of a reference to what others do not have.
const (
	callsFail = "calls to it fail"
	noEffect  = "it has no effect"
)

package istio

import (
	"cmp"
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
)

// registry holds the decoded objects, found by what they are about.
type registry struct {
	rep      *reporter
	opts     Options
	services map[string]*service
	rules    map[string]*destinationRule
	routes   map[string]*virtualService
	peers    *peerPolicies

	// virtualServices are those of routes, each once, in the order of the files.
	virtualServices []*virtualService
}

// newRegistry checks every object by itself and registers it. An object with
// problems is registered too, so that references to it are not reported as
// well.
func newRegistry(rep *reporter, opts Options, objects []*object) *registry {
	r := &registry{
		rep: rep, opts: opts,
		services: make(map[string]*service),
		rules:    make(map[string]*destinationRule),
		routes:   make(map[string]*virtualService),
		peers:    newPeerPolicies(opts.RootNamespace),
	}
	objects = r.unique(objects)
	var workloads []*endpoint
	for _, o := range objects {
		spec := at{rep: rep, obj: o}.field("spec")
		switch m := o.spec.(type) {
		case *networking.WorkloadEntry:
			workloads = append(workloads, workloadEndpoint(o, m, spec))
		case *networking.DestinationRule:
			r.addRule(o, m, spec)
		case *networking.VirtualService:
			r.addVirtualService(o, m, spec)
		case *security.PeerAuthentication:
			r.peers.add(o, m, spec)
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

// knownHost finds the service of a host that a document refers to.
func (r *registry) knownHost(host string, a at) (*service, bool) {
	if s, ok := r.services[host]; ok {
		return s, true
	}
	if full := searchHost(host, ""); full != host && r.services[full] != nil {
		a.errorf("no ServiceEntry has the host %q: Istio completes only names without a dot, write %q", host, full)
		return nil, false
	}
	a.errorf("no ServiceEntry has the host %q", host)
	return nil, false
}

func (r *registry) sortedServices() []*service {
	hosts := slices.Sorted(maps.Keys(r.services))
	services := make([]*service, len(hosts))
	for i, host := range hosts {
		services[i] = r.services[host]
	}
	return services
}

// checkExportTo refuses to hide an object from a namespace: everybody sees
// everything here.
func checkExportTo(exportTo []string, a at) {
	for i, v := range exportTo {
		if v != "*" {
			a.index(i).errorf("%q is not supported: every namespace sees every object, write \"*\" or leave exportTo out", v)
		}
	}
}

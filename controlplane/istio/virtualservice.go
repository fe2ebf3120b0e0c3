package istio

import (
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
	networking "istio.io/api/networking/v1alpha3"
)

// virtualService is the VirtualService of one or more hosts, or a delegate.
type virtualService struct {
	at      at
	spec    *networking.VirtualService
	exports exports
	// hosts are the full names of spec.hosts, "" for one with a problem. A
	// delegate has none.
	hosts []string
	// atGateways tells that it is for gateways too: there a host need not be one of the
	// mesh.
	atGateways bool
	// rules are those that requests can meet, delegates resolved.
	rules []*rule
	// used tells of a delegate that somebody delegates to it.
	used bool
	// metadata is from annotations; nil without any.
	metadata map[string]*structpb.Struct
	// routes are the rules' translations by port.
	routes map[uint32][]sourcedRoute
	// streams are its rules about connections, for ports of TCP; nil without any.
	streams *virtualService
}

func (r *registry) addVirtualService(o *object, spec *networking.VirtualService, a at) {
	vs := &virtualService{
		at: a, spec: spec, exports: newExports(o, spec.ExportTo, a.field("exportTo")),
		hosts: make([]string, len(spec.Hosts)), routes: make(map[uint32][]sourcedRoute),
		metadata:   r.readAnnotations(o, hedgeAnnotation, deadlineAnnotation),
		atGateways: slices.ContainsFunc(spec.Gateways, func(name string) bool { return name != meshGateway }),
	}
	if o.foreign {
		a.field("gateways").warnf(lintForeignGateway, "has no effect: this is a mesh without gateways, and %q is not among them", meshGateway)
		r.foreignServices = append(r.foreignServices, vs)
		return
	}
	if len(spec.Http) == 0 && (len(spec.Tcp) == 0 || len(spec.Hosts) == 0) {
		a.field("http").errorf("is required")
	}
	r.virtualServices = append(r.virtualServices, vs)
	if len(spec.Hosts) == 0 {
		if a.field("gateways").written() {
			a.field("gateways").refuse("is that of the VirtualService which delegates: remove it, or give hosts")
		}
		if len(spec.Tcp) > 0 {
			a.field("tcp").refuse("is for a VirtualService with hosts: what is delegated are requests")
		}
		r.delegates[o.namespace+"/"+o.name] = vs
		return
	}
	for i, host := range spec.Hosts {
		ha := a.field("hosts").index(i)
		host = fullHost(host, o.namespace)
		if !checkPattern(host, false, ha) {
			continue
		}
		if slices.Contains(vs.hosts[:i], host) {
			ha.errorf("%q is there twice", host)
			continue
		}
		vs.hosts[i] = host
		r.routes.add(host, vs)
	}
	vs.addStreams()
}

// checkVirtualService checks every rule, also those that no port or no request
// reaches, and what they refer to.
func (r *registry) checkVirtualService(vs *virtualService) {
	if len(vs.hosts) == 0 && !vs.used {
		vs.at.warnf(lintUnusedDelegate, "has no hosts, and no VirtualService delegates to it: it has no effect")
	}
	r.checkTCP(vs)
	ports, complete := r.portsOf(vs)
	check := func(own *rule) {
		checkRoute(own)
		if own.spec.Delegate == nil {
			r.virtualRoute(own, nil, anyPort)
		} else {
			forward(own, nil)
		}
		for j, match := range own.spec.Match {
			ma := own.matches[j]
			checkMatch(match, ma)
			if isPort(match.Port) && complete && !ports[match.Port] {
				of := max(0, slices.IndexFunc(vs.hosts, ma.ofOthers))
				ma.field("port").wrong(vs.hosts[of], noEffect, "no host of the VirtualService has port %d", match.Port)
			}
		}
	}
	for i, http := range vs.spec.Http {
		if own, ok := newRule(http, vs.at.field("http").index(i)).inMesh(); ok {
			check(own)
		}
	}
	if vs.streams != nil {
		for _, own := range vs.streams.rules {
			check(own)
		}
	}
}

// portsOf are the ports of the hosts of a VirtualService. They are complete if
// every host is known.
func (r *registry) portsOf(vs *virtualService) (ports map[uint32]bool, complete bool) {
	ports = make(map[uint32]bool)
	complete = len(vs.hosts) > 0
	add := func(services []*service) {
		for _, s := range services {
			for _, p := range s.ports {
				ports[p.number] = true
			}
		}
	}
	for i, host := range vs.hosts {
		ha := vs.at.field("hosts").index(i)
		switch {
		case host == "":
			complete = false
		case isWildcard(host):
			some := false
			for known, services := range r.services {
				if covers(host, known) {
					some = true
					add(services)
				}
			}
			if !some {
				complete = false
				ha.warnf(lintUnknownHost, "%q: no Service or ServiceEntry has such a host: it has no effect", host)
			}
		case vs.atGateways && !r.has(host):
			complete = false
			ha.warnf(lintUnknownHost, "%s: in the mesh it has no effect, which is right for a host of the gateways alone", r.unknown(host, ha))
		case r.refers(host, noEffect, ha):
			add(r.services[host])
		default:
			complete = false
		}
	}
	return ports, complete
}

// checkRoute checks how the parts of a route go together.
func checkRoute(r *rule) {
	http := r.spec
	var kind string
	switch {
	case http.Delegate != nil:
	case http.Redirect != nil:
		kind = "redirect"
	case http.DirectResponse != nil:
		kind = "directResponse"
	case len(http.Route) == 0:
		r.field("route").errorf("is required, unless there is a redirect, a directResponse or a delegate")
	}
	if kind != "" {
		for _, name := range []string{"route", "redirect", "directResponse", "rewrite", "fault", "timeout", "retries", "mirror", "mirrors"} {
			if name != kind && r.field(name).written() {
				r.field(name).refuse("cannot be set together with %q", kind)
			}
		}
	}
	checkDuration(http.Timeout, r.field("timeout"))
	checkWeights(http.Route, r.field("route"))
	checkAuthority(r)
}

func checkWeights(route []*networking.HTTPRouteDestination, a at) {
	var sum int64
	for i, d := range route {
		if d.Weight < 0 {
			a.index(i).field("weight").errorf("%d is negative", d.Weight)
		}
		sum += int64(d.Weight)
	}
	switch {
	case len(route) > 1 && sum == 0:
		a.errorf("the weights sum up to 0: give at least one destination a weight")
	case sum > math.MaxUint32:
		a.errorf("the weights sum up to %d: at most %d is possible", sum, uint32(math.MaxUint32))
	}
}

// checkAuthority allows the authority to be set in one place for each destination, so
// that it does not depend on an order which Envoy and Istio see differently.
func checkAuthority(r *rule) {
	first := ""
	set := func(at at) {
		if first != "" {
			at.refuse("the authority is already set by %q", first)
			return
		}
		first = at.path
	}
	if r.spec.GetRewrite().GetAuthority() != "" {
		set(r.field("rewrite").field("authority"))
	}
	inHeaders := func(h *networking.Headers, a at) {
		request := a.field("request")
		for _, name := range sortedKeys(h.GetRequest().GetSet()) {
			if isAuthority(name) {
				set(request.field("set").key(name))
			}
		}
		for _, name := range sortedKeys(h.GetRequest().GetAdd()) {
			if isAuthority(name) {
				set(request.field("add").key(name))
			}
		}
	}
	inHeaders(r.spec.Headers, r.field("headers"))
	ofRoute := first
	for i, d := range r.spec.Route {
		first = ofRoute // each destination may have its own
		inHeaders(d.Headers, r.field("route").index(i).field("headers"))
	}
}

func isAuthority(header string) bool {
	return strings.EqualFold(header, ":authority") || strings.EqualFold(header, "host")
}

// authority is what the operations set the authority to, or "".
func authority(h *networking.Headers) string {
	request := h.GetRequest()
	for _, values := range []map[string]string{request.GetSet(), request.GetAdd()} {
		for _, name := range sortedKeys(values) {
			if isAuthority(name) {
				return values[name]
			}
		}
	}
	return ""
}

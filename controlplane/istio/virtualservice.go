package istio

import (
	"math"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// virtualService is the VirtualService of one or more hosts.
type virtualService struct {
	at   at
	spec *networking.VirtualService
	// hosts are the full names of spec.hosts, "" for one with a problem.
	hosts []string
}

func (r *registry) addVirtualService(o *object, spec *networking.VirtualService, a at) {
	checkExportTo(spec.ExportTo, a.field("exportTo"))
	checkGateways(spec.Gateways, a.field("gateways"))
	if len(spec.Http) == 0 {
		a.field("http").errorf("is required")
	}
	if len(spec.Hosts) == 0 {
		a.field("hosts").errorf("is required: delegates are not supported")
	}
	vs := &virtualService{at: a, spec: spec, hosts: make([]string, len(spec.Hosts))}
	r.virtualServices = append(r.virtualServices, vs)
	for i, host := range spec.Hosts {
		ha := a.field("hosts").index(i)
		host = fullHost(host, o.namespace)
		if !checkHost(host, ha) {
			continue
		}
		if other, ok := r.routes[host]; ok {
			ha.errorf("%q already has %s: merging is not supported", host, other.at.obj.source())
			continue
		}
		r.routes[host], vs.hosts[i] = vs, host
	}
}

// checkVirtualService checks every rule, also those that no port or no request
// reaches, and what they refer to.
func (r *registry) checkVirtualService(vs *virtualService) {
	ports := make(map[uint32]bool)
	complete := true
	for i, host := range vs.hosts {
		if host == "" {
			complete = false
			continue
		}
		s, ok := r.knownHost(host, vs.at.field("hosts").index(i))
		if !ok {
			complete = false
			continue
		}
		for _, p := range s.ports {
			ports[p.number] = true
		}
	}
	for i, http := range vs.spec.Http {
		a := vs.at.field("http").index(i)
		checkRoute(http, a)
		r.virtualRoute(vs, http, nil, anyPort, a)
		for j, match := range http.Match {
			ma := a.field("match").index(j)
			checkMatch(match, ma)
			if isPort(match.Port) && complete && !ports[match.Port] {
				ma.field("port").errorf("no host of the VirtualService has port %d", match.Port)
			}
		}
	}
}

func checkGateways(gateways []string, a at) {
	for i, g := range gateways {
		if g != "mesh" {
			a.index(i).errorf("%q: gateways are not supported: write mesh or leave gateways out", g)
		}
	}
}

// checkRoute checks how the parts of a route go together.
func checkRoute(http *networking.HTTPRoute, a at) {
	var kind string
	switch {
	case http.Redirect != nil:
		kind = "redirect"
	case http.DirectResponse != nil:
		kind = "directResponse"
	case len(http.Route) == 0:
		a.field("route").errorf("is required, unless there is a redirect or a directResponse")
	}
	if kind != "" {
		for _, name := range []string{"route", "redirect", "directResponse", "rewrite", "fault", "timeout", "retries"} {
			if name != kind && a.field(name).written() {
				a.field(name).refuse("cannot be set together with %q", kind)
			}
		}
	}
	checkDuration(http.Timeout, a.field("timeout"))
	checkWeights(http.Route, a.field("route"))
	checkAuthority(http, a)
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

// checkAuthority allows the authority to be set in one place, so that it does
// not depend on an order which Envoy and Istio see differently.
func checkAuthority(http *networking.HTTPRoute, a at) {
	first := ""
	set := func(at at) {
		if first != "" {
			at.refuse("the authority is already set by %q", first)
			return
		}
		first = at.path
	}
	if http.GetRewrite().GetAuthority() != "" {
		set(a.field("rewrite").field("authority"))
	}
	inHeaders := func(h *networking.Headers, a at) {
		request := a.field("headers").field("request")
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
	inHeaders(http.Headers, a)
	for i, d := range http.Route {
		da := a.field("route").index(i)
		inHeaders(d.Headers, da)
		if len(http.Route) > 1 && authority(d.Headers) != "" {
			da.field("headers").refuse("the authority of one of several destinations cannot be set: use rewrite.authority")
		}
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

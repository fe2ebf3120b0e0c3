package istio

import (
	"cmp"
	"slices"
)

// hostIndex finds what is about a host, by its name or by wildcards.
type hostIndex[T any] struct {
	exact map[string][]T
	wild  map[string][]T
}

func newHostIndex[T any]() hostIndex[T] {
	return hostIndex[T]{exact: make(map[string][]T), wild: make(map[string][]T)}
}

func (x hostIndex[T]) add(pattern string, value T) {
	if isWildcard(pattern) {
		x.wild[pattern] = append(x.wild[pattern], value)
	} else {
		x.exact[pattern] = append(x.exact[pattern], value)
	}
}

// about are the values for a host by their patterns, the most specific pattern
// first: the name itself, then wildcards, longest first.
func (x hostIndex[T]) about(host string) []patternValues[T] {
	var found []patternValues[T]
	if values, ok := x.exact[host]; ok {
		found = append(found, patternValues[T]{host, values})
	}
	wild := len(found)
	for pattern, values := range x.wild {
		if covers(pattern, host) {
			found = append(found, patternValues[T]{pattern, values})
		}
	}
	slices.SortFunc(found[wild:], func(a, b patternValues[T]) int { return cmp.Compare(len(b.pattern), len(a.pattern)) })
	return found
}

type patternValues[T any] struct {
	pattern string
	values  []T
}

// spacesOf are the namespaces whose nodes may have other answers about a host
// than everybody else, sorted, after elsewhere.
func (r *registry) spacesOf(host string, services []*service) []string {
	spaces := []string{elsewhere}
	add := func(owner string, e exports) {
		spaces = append(spaces, owner)
		spaces = append(spaces, e.to...)
	}
	for _, name := range slices.Concat(r.aliases[host], []string{host}) {
		if _, home, ok := serviceName(name); ok {
			spaces = append(spaces, home)
		}
	}
	for _, s := range services {
		if len(services) > 1 || !s.exports.all {
			add(s.at.obj.namespace, s.exports)
		}
	}
	for _, found := range r.rules.about(host) {
		for _, rule := range found.values {
			add(rule.at.obj.namespace, rule.exports)
		}
	}
	for _, found := range r.routes.about(host) {
		for _, vs := range found.values {
			if !vs.exports.all {
				add(vs.at.obj.namespace, vs.exports)
			}
		}
	}
	for _, p := range r.attached[host] {
		spaces = append(spaces, p.consumer)
	}
	slices.Sort(spaces)
	return slices.Compact(spaces)
}

// serviceIn is the service that a namespace knows under a host, nil for none:
// its own before those of others.
func serviceIn(services []*service, namespace string) *service {
	var visible *service
	for _, s := range services {
		switch {
		case !s.exports.visibleIn(namespace):
		case s.at.obj.namespace == namespace:
			return s
		case visible == nil:
			visible = s
		}
	}
	return visible
}

// checkServices refuses a host that a namespace has from several others, where
// Istio would choose one of them at random.
func checkServices(host string, services []*service, spaces []string) {
	if len(services) < 2 {
		return
	}
	for _, namespace := range spaces {
		var visible []*service
		for _, s := range services {
			if s.exports.visibleIn(namespace) {
				visible = append(visible, s)
			}
		}
		if len(visible) < 2 || serviceIn(services, namespace).at.obj.namespace == namespace {
			continue
		}
		who := "every namespace"
		if namespace != elsewhere {
			who = "namespace \"" + namespace + "\""
		}
		for _, s := range visible[1:] {
			s.hostAt.errorf("%q is also a host of %s, and %s sees both: hide one of them with exportTo",
				host, visible[0].at.obj.source(), who)
		}
	}
}

// ruleIn is the DestinationRule by which a namespace calls a service, nil for
// none, as Istio looks for it: in the namespace that calls, then in that of the
// service, then in the root namespace. Of one namespace it is the one with the
// most specific host.
func (r *registry) ruleIn(s *service, namespace string) *destinationRule {
	found := r.rules.about(s.host)
	first := func(owner string, use func(*destinationRule) bool) *destinationRule {
		for _, f := range found {
			for _, rule := range f.values {
				if rule.at.obj.namespace == owner && use(rule) {
					return rule
				}
			}
		}
		return nil
	}
	root := r.opts.RootNamespace
	own := first(namespace, func(d *destinationRule) bool {
		if namespace == root {
			// What the root namespace exports is for the whole mesh. It must
			// not hide what the service's own namespace says.
			return d.exports.privateTo(root)
		}
		return d.exports.visibleIn(namespace)
	})
	if own != nil {
		return own
	}
	for _, owner := range []string{s.at.obj.namespace, root} {
		rule := first(owner, func(d *destinationRule) bool { return !d.exports.privateTo(owner) })
		if rule != nil && rule.exports.visibleIn(namespace) {
			return rule
		}
	}
	return nil
}

// virtualServicesIn are the VirtualServices that a namespace sees for a host:
// those with the most specific pattern, in the order in which Istio tries them.
// The first that has a route for a node wins. It also reports which do not.
func (r *registry) virtualServicesIn(host, namespace string) []*virtualService {
	for _, found := range r.routes.about(host) {
		visible := slices.DeleteFunc(slices.Clone(found.values), func(vs *virtualService) bool {
			return !vs.exports.visibleIn(namespace)
		})
		if len(visible) == 0 {
			continue
		}
		slices.SortFunc(visible, func(a, b *virtualService) int {
			if c := cmp.Compare(a.rank(namespace), b.rank(namespace)); c != 0 {
				return c
			}
			if before, _ := a.at.obj.before(b.at.obj); before {
				return -1
			}
			return 1
		})
		visible[0].checkOthers(found.pattern, namespace, visible[1:])
		if isWildcard(found.pattern) {
			return visible[:1]
		}
		return visible
	}
	return nil
}

// rank orders VirtualServices by how narrowly they are exported to a namespace:
// its own that nobody else sees, those that are exported to it by name, those
// that everybody sees.
func (vs *virtualService) rank(namespace string) int {
	switch {
	case vs.exports.all:
		return 2
	case vs.at.obj.namespace == namespace:
		return 0
	}
	return 1
}

// checkOthers reports the VirtualServices that lose a host against this one.
// Istio lets the oldest win. Where no age is known, no choice is made.
func (vs *virtualService) checkOthers(pattern, namespace string, others []*virtualService) {
	for _, other := range others {
		hostAt := other.at.field("hosts")
		if i := slices.Index(other.hosts, pattern); i >= 0 {
			hostAt = hostAt.index(i)
		}
		_, decided := vs.at.obj.before(other.at.obj)
		switch {
		case vs.rank(namespace) < other.rank(namespace):
			hostAt.warnf(lintOverriddenHost, "has no effect on %q in namespace %q: %s is exported more narrowly", pattern, namespace, vs.at.obj.source())
		case decided:
			hostAt.warnf(lintOverriddenHost, "has no effect on %q: the older %s wins", pattern, vs.at.obj.source())
		default:
			hostAt.errorf("%q already has %s, and it is not known which is the older one, which would win: merge them, or give both metadata.creationTimestamp",
				pattern, vs.at.obj.source())
		}
	}
}

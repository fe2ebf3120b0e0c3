package istio

import (
	"cmp"
	"slices"
	"strings"
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

// rankServices orders the services of a host as those take them who have none of their
// own: that of the namespace which the name of the host names, then the oldest, as in
// Istio, which puts Services of Kubernetes first; they are of that namespace.
func rankServices(host string, services []*service) {
	_, home, _ := serviceName(host)
	aged := !slices.ContainsFunc(services, func(s *service) bool { return s.at.obj.created.IsZero() })
	slices.SortStableFunc(services, func(a, b *service) int {
		age := 0
		if aged {
			age = a.at.obj.created.Compare(b.at.obj.created)
		}
		return cmp.Or(firstIn(home, a.at.obj, b.at.obj), age)
	})
}

// firstIn orders objects of a namespace before others.
func firstIn(namespace string, a, b *object) int {
	switch inA, inB := a.namespace == namespace, b.namespace == namespace; {
	case inA == inB:
		return 0
	case inA:
		return -1
	}
	return 1
}

// checkServices reports a host that a namespace has from several others, and refuses it
// where it is not known whose it is.
func checkServices(host string, services []*service, spaces []string) {
	if len(services) < 2 {
		return
	}
	_, home, _ := serviceName(host)
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
		winner := visible[0]
		for _, s := range visible[1:] {
			switch by := winner.at.obj; {
			case by.namespace == home:
				s.hostAt.warnf(lintOverriddenHost, "%q has no effect in other namespaces than %q: it is the name of %s", host, s.at.obj.namespace, by.source())
			case by.isOlder(s.at.obj):
				s.hostAt.warnf(lintOverriddenHost, "%q has no effect in other namespaces than %q: the older %s wins", host, s.at.obj.namespace, by.source())
			default:
				s.hostAt.errorf("%q is also a host of %s, and %s sees both: hide one of them with exportTo", host, by.source(), who)
			}
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
		r.rankVirtualServices(host, namespace, visible)
		r.checkOthers(host, found.pattern, namespace, visible)
		if isWildcard(found.pattern) {
			return visible[:1]
		}
		return visible
	}
	return nil
}

// ranks is how many ranks there are.
const ranks = 3

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

// rankVirtualServices orders VirtualServices as Istio tries them. Those that everybody sees
// go by age. Where it is not known, those of the service's own namespace go first, so that
// nobody takes the calls of others by writing a document, and then the name decides.
func (r *registry) rankVirtualServices(host, namespace string, all []*virtualService) {
	home := r.homeOf(host)
	var aged [ranks]bool
	for rank := range aged {
		aged[rank] = agesKnown(all, rank, namespace)
	}
	slices.SortFunc(all, func(a, b *virtualService) int {
		rank := a.rank(namespace)
		if c := cmp.Compare(rank, b.rank(namespace)); c != 0 {
			return c
		}
		age := 0
		if aged[rank] {
			age = a.at.obj.created.Compare(b.at.obj.created)
		}
		return cmp.Or(age, firstIn(home, a.at.obj, b.at.obj),
			strings.Compare(a.at.obj.name, b.at.obj.name), strings.Compare(a.at.obj.namespace, b.at.obj.namespace))
	})
}

// agesKnown reports whether all VirtualServices of a rank tell their age.
func agesKnown(all []*virtualService, rank int, namespace string) bool {
	return !slices.ContainsFunc(all, func(vs *virtualService) bool {
		return vs.rank(namespace) == rank && vs.at.obj.created.IsZero()
	})
}

// homeOf is the namespace whose a host is.
func (r *registry) homeOf(host string) string {
	if _, home, ok := serviceName(host); ok {
		return home
	}
	if services := r.services[host]; len(services) > 0 {
		return services[0].at.obj.namespace
	}
	return ""
}

// checkOthers reports the VirtualServices that lose a host against the first. Where one
// namespace has two, and their age is not known, no choice is made.
func (r *registry) checkOthers(host, pattern, namespace string, all []*virtualService) {
	first, home := all[0], r.homeOf(host)
	by, aged := first.at.obj, agesKnown(all, first.rank(namespace), namespace)
	for _, other := range all[1:] {
		hostAt := other.hostAt(pattern)
		switch {
		case first.rank(namespace) < other.rank(namespace):
			hostAt.warnf(lintOverriddenHost, "has no effect on %q in namespace %q: %s is exported more narrowly", pattern, namespace, by.source())
		case aged && by.isOlder(other.at.obj):
			hostAt.warnf(lintOverriddenHost, "has no effect on %q: the older %s wins", pattern, by.source())
		case other.at.obj.namespace == by.namespace && !aged:
			hostAt.errorf("%q already has %s, and it is not known which is the older one, which would win: merge them, or give both metadata.creationTimestamp",
				pattern, by.source())
		case by.namespace == home && other.at.obj.namespace != home:
			hostAt.warnf(lintOverriddenHost, "has no effect on %q: %s goes before it, which is of the namespace of the service, because it is not known which is older", pattern, by.source())
		default:
			hostAt.warnf(lintOverriddenHost, "has no effect on %q: %s goes before it by its name, because it is not known which is older", pattern, by.source())
		}
	}
}

// hostAt is where a VirtualService names a host.
func (vs *virtualService) hostAt(host string) at {
	a := vs.at.field("hosts")
	if i := slices.Index(vs.hosts, host); i >= 0 {
		a = a.index(i)
	}
	return a
}

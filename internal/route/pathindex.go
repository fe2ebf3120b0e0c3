package route

import (
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// pathIndex finds the routes of a virtual host whose path condition a request
// meets, without a look at all the others. It holds numbers of routes, which
// are their order in the configuration: each list is ascending, so the first
// that meets its other conditions is the first of its list.
type pathIndex struct {
	exact map[string][]int32
	// prefixes are those of both kinds, nil without any.
	prefixes *prefixNode
	// exactFolded and prefixesFolded are those without regard to case, in lower
	// case.
	exactFolded    map[string][]int32
	prefixesFolded *prefixNode
	// others are tried one after the other: regular expressions and templates.
	others []int32
}

func newPathIndex(routes []compiledRoute) pathIndex {
	var p pathIndex
	for i := range routes {
		p.add(&routes[i], int32(i))
	}
	p.prune(routes)
	return p
}

func (p *pathIndex) add(r *compiledRoute, number int32) {
	m := &r.source.Match.Path
	switch {
	case m.Kind == discovery.PathRegex, m.Kind == discovery.PathTemplate:
		p.others = append(p.others, number)
	case m.Kind == discovery.PathExact && m.IgnoreCase:
		addExact(&p.exactFolded, lowerASCII(m.Value), number)
	case m.Kind == discovery.PathExact:
		addExact(&p.exact, m.Value, number)
	case m.IgnoreCase:
		addPrefix(&p.prefixesFolded, lowerASCII(m.Value), m.Kind, number)
	default:
		addPrefix(&p.prefixes, m.Value, m.Kind, number)
	}
}

func addExact(to *map[string][]int32, path string, number int32) {
	if *to == nil {
		*to = make(map[string][]int32)
	}
	(*to)[path] = append((*to)[path], number)
}

func addPrefix(to **prefixNode, prefix string, kind discovery.PathMatchKind, number int32) {
	if *to == nil {
		*to = new(prefixNode)
	}
	node := (*to).insert(prefix)
	if kind == discovery.PathSeparatedPrefix {
		node.separated = append(node.separated, number)
	} else {
		node.routes = append(node.routes, number)
	}
}

// prune leaves out what is never reached: the routes of a list after one that
// asks for nothing but the path.
func (p *pathIndex) prune(routes []compiledRoute) {
	reached := func(list []int32) []int32 {
		for i, number := range list {
			if routes[number].onlyPath {
				return list[: i+1 : i+1]
			}
		}
		return list
	}
	for _, exact := range []map[string][]int32{p.exact, p.exactFolded} {
		for path, list := range exact {
			exact[path] = reached(list)
		}
	}
	p.prefixes.prune(reached)
	p.prefixesFolded.prune(reached)
}

// first returns the number of the first route that matches, -1 without one. The
// order in which the lists are looked at does not matter: what is asked of a
// later list is only whether it has an earlier route.
func (t *Table) first(vh *virtualHost, req *Request) int {
	p := &vh.paths
	best := int32(len(vh.routes))
	if p.exact != nil {
		best = t.earlier(vh, p.exact[req.Path], best, req)
	}
	if p.prefixes != nil {
		best = t.earlierPrefix(vh, p.prefixes, req.Path, best, req)
	}
	if p.exactFolded != nil || p.prefixesFolded != nil {
		path := lowerASCII(req.Path)
		best = t.earlier(vh, p.exactFolded[path], best, req)
		if p.prefixesFolded != nil {
			best = t.earlierPrefix(vh, p.prefixesFolded, path, best, req)
		}
	}
	for _, number := range p.others {
		if number >= best {
			break
		}
		if m := &vh.routes[number].source.Match; matchPath(&m.Path, req.Path) && t.matchRest(m, req) {
			best = number
			break
		}
	}
	if int(best) == len(vh.routes) {
		return -1
	}
	return int(best)
}

// earlier returns the first route of a list that matches, if it comes before
// best, else best. The path has been compared.
func (t *Table) earlier(vh *virtualHost, list []int32, best int32, req *Request) int32 {
	for _, number := range list {
		if number >= best {
			break
		}
		if r := &vh.routes[number]; r.onlyPath || t.matchRest(&r.source.Match, req) {
			return number
		}
	}
	return best
}

// earlierPrefix is earlier for all prefixes of a path.
func (t *Table) earlierPrefix(vh *virtualHost, node *prefixNode, path string, best int32, req *Request) int32 {
	rest := path
	for node != nil {
		if len(node.routes) > 0 {
			best = t.earlier(vh, node.routes, best, req)
		}
		if len(node.separated) > 0 && (rest == "" || rest[0] == '/') {
			best = t.earlier(vh, node.separated, best, req)
		}
		node, rest = node.next(rest)
	}
	return best
}

// prefixNode is a node of a radix tree over the bytes of prefixes. It stands for
// the text of the labels from the root to it.
type prefixNode struct {
	label string
	// routes are those whose prefix ends here, separated those of
	// PathSeparatedPrefix.
	routes, separated []int32
	// starts are the first bytes of the children's labels, in their order.
	starts   string
	children []prefixNode
}

// next returns the child that continues with rest, and what is left of rest
// after it; nil without one.
func (n *prefixNode) next(rest string) (*prefixNode, string) {
	if rest == "" {
		return nil, ""
	}
	i := strings.IndexByte(n.starts, rest[0])
	if i < 0 {
		return nil, ""
	}
	child := &n.children[i]
	length := len(child.label)
	if len(rest) < length || rest[1:length] != child.label[1:] {
		return nil, ""
	}
	return child, rest[length:]
}

// insert returns the node of a prefix below n, which it makes if need be.
func (n *prefixNode) insert(prefix string) *prefixNode {
	if prefix == "" {
		return n
	}
	i := strings.IndexByte(n.starts, prefix[0])
	if i < 0 {
		n.starts += prefix[:1]
		n.children = append(n.children, prefixNode{label: prefix})
		return &n.children[len(n.children)-1]
	}
	child := &n.children[i]
	common := 0
	for common < len(prefix) && common < len(child.label) && prefix[common] == child.label[common] {
		common++
	}
	if common < len(child.label) {
		// The label is split where they part.
		below := *child
		below.label = child.label[common:]
		*child = prefixNode{label: child.label[:common], starts: below.label[:1], children: []prefixNode{below}}
	}
	return child.insert(prefix[common:])
}

// prune applies reached to every list of the tree.
func (n *prefixNode) prune(reached func([]int32) []int32) {
	if n == nil {
		return
	}
	n.routes, n.separated = reached(n.routes), reached(n.separated)
	for i := range n.children {
		n.children[i].prune(reached)
	}
}

// lowerASCII lowers the letters of ASCII and leaves everything else, which is
// how Envoy compares without regard to case.
func lowerASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return lowered(s)
		}
	}
	return s
}

func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

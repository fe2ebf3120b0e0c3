package route

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// Trace is how a table came to its decision about a request.
type Trace struct {
	// Decision is that of [Table.Match]; OK is false without one.
	Decision Decision
	OK       bool
	// Host is the virtual host of the request, nil without one, and Domain the one
	// of its domains that is for it.
	Host   *discovery.VirtualHost
	Domain string
	// Index is the number of the route that matched, -1 without one.
	Index int
	// Misses are why the routes before it did not match, by their numbers; why none
	// did if there is no such route.
	Misses []Miss
	// Draws tells how the cluster was chosen: Number is below Total, the sum of the
	// weights.
	Draws         Draws
	Number, Total uint64
}

// Miss is the first condition of a route that a request does not meet.
type Miss struct {
	// Condition is "path", "header NAME", "query NAME", "cookie NAME", "metadata PATH",
	// "grpc" or "fraction".
	Condition string
	// Want is what the route asks for and Got what the request has; a value that
	// is not there is "(none)".
	Want, Got string
	// Name is the name in Condition, "" without one.
	Name string
}

// absent stands for a value that a request does not have.
const absent = "(none)"

// Absent reports whether the request does not have the value.
func (m *Miss) Absent() bool { return strings.HasSuffix(m.Got, absent) }

// Trace is Match that tells how. It finds host, route and cluster with the same
// steps, and draws as often. Only why the other routes did not match is looked up
// beside that, by the functions that compared them.
func (t *Table) Trace(req *Request) Trace {
	vh, at := t.domains.locate(req.Host)
	trace := Trace{Index: -1}
	if vh == nil {
		return trace
	}
	trace.Host, trace.Domain = vh.source, t.domain(req.Host, at)
	trace.Index = t.first(vh, req)
	missed := vh.routes
	if trace.Index >= 0 {
		missed = missed[:trace.Index]
	}
	for i := range missed {
		trace.Misses = append(trace.Misses, missOf(&missed[i].source.Match, req))
	}
	if trace.Index < 0 {
		return trace
	}
	r := &vh.routes[trace.Index]
	trace.OK = true
	trace.Decision = Decision{Table: t.source, VirtualHost: vh.source, Route: r.source}
	trace.Decision.Cluster, trace.Number, trace.Draws = t.drawCluster(r, req)
	if trace.Draws != NoDraw {
		trace.Total = r.totalWeight
	}
	return trace
}

// TraceWithout is [Table.Trace] without chance: of the routes that match a share of
// the requests, those of which nothing but chance decides, the one with the number
// hit matches, from 0, and -1 lets none of them match.
func (t *Table) TraceWithout(req *Request, hit int) Trace {
	certain, draws := *t, 0
	certain.random = func(n uint64) uint64 {
		draws++
		if draws-1 == hit {
			return 0
		}
		return n - 1
	}
	return certain.Trace(req)
}

// domain is the domain that was found for an authority.
func (t *Table) domain(authority string, at star) string {
	if t.domains.ignorePort {
		authority = stripPort(authority)
	}
	authority = strings.ToLower(authority)
	switch at.kind {
	case starBefore:
		return "*" + authority[len(authority)-at.length:]
	case starAfter:
		return authority[:at.length] + "*"
	case onlyStar:
		return "*"
	case noStar:
	}
	return authority
}

// missOf says why a route did not match that comes before the one that did.
func missOf(m *discovery.RouteMatch, req *Request) Miss {
	if !matchPath(&m.Path, req.Path) {
		return Miss{Condition: "path", Want: describePath(&m.Path), Got: strconv.Quote(req.Path)}
	}
	switch c := unmet(m, req); c.kind {
	case headerCondition:
		h := &m.Headers[c.index]
		return Miss{Condition: "header " + h.Name, Name: h.Name, Want: describeHeader(h), Got: quoted(headerValue(req, h.Name))}
	case queryCondition:
		q := &m.Query[c.index]
		return Miss{Condition: "query " + q.Name, Name: q.Name, Want: describeQuery(q), Got: quoted(queryValue(req.Query, q.Name))}
	case cookieCondition:
		k := &m.Cookies[c.index]
		return Miss{
			Condition: "cookie " + k.Name, Name: k.Name,
			Want: inverted(k.Invert) + describeString(&k.String), Got: quoted(cookieValue(req, k.Name)),
		}
	case metadataCondition:
		name := m.Metadata[c.index].Name()
		return Miss{Condition: "metadata " + name, Name: name, Want: "what filters leave", Got: "(hidden)"}
	case grpcCondition:
		return Miss{Condition: "grpc", Want: "a gRPC request", Got: "content-type " + quoted(headerValue(req, "content-type"))}
	case everyCondition:
	}
	// Everything else is met, and yet it did not match: chance was against it.
	return Miss{Condition: "fraction", Want: describeFraction(m.PerMillion), Got: "not this one"}
}

func quoted(value string, ok bool) string {
	if !ok {
		return absent
	}
	return strconv.Quote(value)
}

// Describe is a route's match in words. The values of headers, parameters and
// cookies whose names are secret are left out; the name of all cookies is "cookie".
func Describe(m *discovery.RouteMatch, secret func(name string) bool) string {
	parts := []string{"path " + describePath(&m.Path)}
	add := func(kind, name, secretName, condition string) {
		if secret(secretName) {
			condition = "(hidden)"
		}
		parts = append(parts, kind+" "+name+" "+condition)
	}
	for i := range m.Headers {
		add("header", m.Headers[i].Name, m.Headers[i].Name, describeHeader(&m.Headers[i]))
	}
	for i := range m.Query {
		add("query", m.Query[i].Name, m.Query[i].Name, describeQuery(&m.Query[i]))
	}
	for i := range m.Cookies {
		k := &m.Cookies[i]
		add("cookie", k.Name, "cookie", inverted(k.Invert)+describeString(&k.String))
	}
	for i := range m.Metadata {
		// Claims of a token are nobody else's business.
		parts = append(parts, "metadata "+inverted(m.Metadata[i].Invert)+m.Metadata[i].Name()+" (hidden)")
	}
	if m.GRPC {
		parts = append(parts, "gRPC")
	}
	if m.PerMillion != nil {
		parts = append(parts, describeFraction(m.PerMillion))
	}
	return strings.Join(parts, ", ")
}

// describePath is a path condition in words.
func describePath(m *discovery.PathMatch) string {
	kinds := map[discovery.PathMatchKind]string{
		discovery.PathPrefix: "prefix", discovery.PathExact: "exact", discovery.PathRegex: "regex",
		discovery.PathTemplate: "template",
	}
	value := m.Value
	if m.Kind == discovery.PathRegex && m.Regex != nil {
		value = m.Regex.Source
	}
	if m.Kind == discovery.PathSeparatedPrefix {
		return strconv.Quote(value) + " and below" + folded(m.IgnoreCase)
	}
	return kinds[m.Kind] + " " + strconv.Quote(value) + folded(m.IgnoreCase)
}

// describeHeader is a header condition in words, without the name.
func describeHeader(m *discovery.HeaderMatch) string {
	not := inverted(m.Invert)
	switch m.Kind {
	case discovery.HeaderPresent:
		if m.Present {
			return not + "present"
		}
		return not + "absent"
	case discovery.HeaderRange:
		return fmt.Sprintf("%sin [%d, %d)", not, m.Start, m.End)
	case discovery.HeaderString:
	}
	return not + describeString(&m.String)
}

func describeQuery(m *discovery.QueryMatch) string {
	if m.AnyValue {
		return "present"
	}
	return describeString(&m.String)
}

func describeString(m *discovery.StringMatch) string {
	kinds := map[discovery.StringMatchKind]string{
		discovery.MatchExact: "exact", discovery.MatchPrefix: "prefix", discovery.MatchSuffix: "suffix",
		discovery.MatchContains: "contains", discovery.MatchRegex: "regex",
	}
	value := m.Value
	if m.Regex != nil {
		value = m.Regex.Source
	}
	return kinds[m.Kind] + " " + strconv.Quote(value) + folded(m.IgnoreCase)
}

func describeFraction(perMillion *uint32) string {
	if perMillion == nil {
		return "always"
	}
	return strconv.FormatFloat(float64(*perMillion)/10_000, 'f', -1, 64) + "% of the requests"
}

func inverted(invert bool) string {
	if invert {
		return "not "
	}
	return ""
}

func folded(ignoreCase bool) string {
	if ignoreCase {
		return " in any case"
	}
	return ""
}

package route

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

// FuzzMatch holds Table.Match against a reference that is written from the
// rules, one after the other, without any of the table's short cuts.
//
// The table is text: a line "host NAME DOMAIN..." begins a virtual host, every
// other line is a route "KIND VALUE [HEADER=VALUE]" of it.
func FuzzMatch(f *testing.F) {
	f.Add("host a payment *\nprefix /charge\nexact /refund x-user=ada", "payment", "/charge", "q=1", "ada", false)
	f.Add("host a *.example.com\nseparated /charge\nhost b *-v1.example.com\nregex /a.*", "x-v1.example.com:80", "/charge/card", "", "", true)
	f.Add("host a payment.* PAYMENT.shop\nPREFIX /Charge\nhost b *\nEXACT /", "Payment.Shop", "/charge", "", "", false)
	f.Add("host a [::1] *\nprefix /", "[::1]:80", "/", "", "", true)
	f.Add("host a ** *\nprefix ", "", "", "", "", true)
	f.Fuzz(func(t *testing.T, table, authority, path, query, user string, ignorePort bool) {
		source := parseTable(table)
		source.IgnorePortInHostMatching = ignorePort
		req := &Request{Method: "GET", Scheme: "http", Host: authority, Path: path, Query: query}
		if user != "" {
			req.Header = headers{"x-user": strings.Split(user, "|")}
		}
		want := reference(source, req)
		got, ok := Compile(source).Match(req)
		if ok != (want != nil) || ok && got.Route != want {
			t.Errorf("Match() = %+v, %t; the reference says %+v", got.Route, ok, want)
		}
		if !ok {
			return
		}
		if cluster := got.Cluster; cluster == nil || !strings.HasPrefix(cluster.Name, got.Route.Name) {
			t.Errorf("cluster %+v is none of route %q", cluster, got.Route.Name)
		}
		out := got.Forward(headers{}, req, &Facts{}, false)
		if !strings.HasPrefix(out.Path, "/rewritten") {
			t.Errorf("path %q became %q", path, out.Path)
		}
	})
}

func parseTable(text string) *discovery.RouteTable {
	table := &discovery.RouteTable{}
	seen := map[string]bool{} // domains are unique, the decoder sees to it
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case words[0] == "host" && len(words) > 1:
			vh := &discovery.VirtualHost{Name: words[1]}
			for _, domain := range words[1:] {
				if key := strings.ToLower(domain); !seen[key] {
					seen[key] = true
					vh.Domains = append(vh.Domains, domain)
				}
			}
			table.VirtualHosts = append(table.VirtualHosts, vh)
		case len(table.VirtualHosts) > 0:
			vh := table.VirtualHosts[len(table.VirtualHosts)-1]
			vh.Routes = append(vh.Routes, parseRoute(words, len(vh.Routes)))
		}
	}
	return table
}

func parseRoute(words []string, number int) *discovery.Route {
	route := &discovery.Route{Name: "r" + strconv.Itoa(number) + "-"}
	route.Forward = &discovery.Forward{
		Clusters: []discovery.WeightedCluster{
			{Name: route.Name + "a", Weight: 1}, {Name: route.Name + "b", Weight: 2},
		},
		PrefixRewrite: "/rewritten",
	}
	m := &route.Match.Path
	kind := words[0]
	m.IgnoreCase = kind == strings.ToUpper(kind)
	if len(words) > 1 {
		m.Value = words[1]
	}
	switch strings.ToLower(kind) {
	case "exact":
		m.Kind = discovery.PathExact
	case "separated":
		m.Kind = discovery.PathSeparatedPrefix
	case "regex":
		m.Kind = discovery.PathRegex
		program, err := regexp.Compile(`\A(?:` + m.Value + `)\z`)
		if err != nil {
			program = regexp.MustCompile(`\z\A`)
		}
		m.Regex = &discovery.Regex{Program: program}
	}
	if len(words) > 2 {
		name, value, hasValue := strings.Cut(words[2], "=")
		h := discovery.HeaderMatch{Name: strings.ToLower(name), String: discovery.StringMatch{Value: value}}
		if !hasValue {
			h.Kind, h.Present = discovery.HeaderPresent, true
		}
		route.Match.Headers = append(route.Match.Headers, h)
	}
	return route
}

// reference finds the route of a request the slow way; nil is none.
func reference(table *discovery.RouteTable, req *Request) *discovery.Route {
	var best *discovery.VirtualHost
	bestRank := -1
	for _, vh := range table.VirtualHosts {
		for _, domain := range vh.Domains {
			if rank := domainRank(strings.ToLower(domain), strings.ToLower(referenceHost(table, req.Host))); rank > bestRank {
				best, bestRank = vh, rank
			}
		}
	}
	if best == nil {
		return nil
	}
	for _, r := range best.Routes {
		if referencePath(&r.Match.Path, req.Path) && (len(r.Match.Headers) == 0 || referenceHeader(&r.Match.Headers[0], req)) {
			return r
		}
	}
	return nil
}

var port = regexp.MustCompile(`:[0-9]*\z`)

func referenceHost(table *discovery.RouteTable, authority string) string {
	if !table.IgnorePortInHostMatching {
		return authority
	}
	return port.ReplaceAllString(authority, "")
}

// domainRank is how good a domain fits, -1 if it does not: exact before suffix
// before prefix before everything, the longer before the shorter.
func domainRank(domain, authority string) int {
	const step = 1 << 20
	switch {
	case domain == "*":
		return 0
	case strings.HasPrefix(domain, "*"):
		if strings.HasSuffix(authority, domain[1:]) && len(authority) >= len(domain) {
			return 2*step + len(domain)
		}
		return -1
	case strings.HasSuffix(domain, "*"):
		if strings.HasPrefix(authority, domain[:len(domain)-1]) && len(authority) >= len(domain) {
			return step + len(domain)
		}
		return -1
	case domain == authority:
		return 3 * step
	}
	return -1
}

func referencePath(m *discovery.PathMatch, path string) bool {
	if m.Kind == discovery.PathRegex {
		return m.Regex.Program.FindString(path) == path && m.Regex.Program.MatchString(path)
	}
	value := m.Value
	if m.IgnoreCase {
		value, path = referenceLower(value), referenceLower(path)
	}
	if m.Kind == discovery.PathExact {
		return path == value
	}
	tail, same := strings.CutPrefix(path, value)
	if m.Kind == discovery.PathSeparatedPrefix {
		return same && (tail == "" || strings.HasPrefix(tail, "/"))
	}
	return same
}

// referenceLower lowers ASCII letters.
func referenceLower(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if i := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c); i >= 0 {
			c = "abcdefghijklmnopqrstuvwxyz"[i]
		}
		b.WriteByte(c)
	}
	return b.String()
}

func referenceHeader(m *discovery.HeaderMatch, req *Request) bool {
	pseudo := map[string]string{
		":method": req.Method, ":scheme": req.Scheme, ":authority": req.Host, "host": req.Host,
		":path": strings.TrimSuffix(req.Path+"?"+req.Query, "?"),
	}
	value, ok := pseudo[m.Name]
	if m.Name == ":path" && req.Query == "" {
		value = req.Path
	}
	if !ok && m.Name == "x-user" && req.Header != nil {
		value, ok = strings.Join(req.Header.Values("x-user"), ","), true
	}
	return ok && (m.Kind == discovery.HeaderPresent || value == m.String.Value)
}

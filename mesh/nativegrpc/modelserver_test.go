package nativegrpc

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// inboundOf is a listener with one chain, which is changed as a test wants.
func inboundOf(change func(c *discovery.FilterChain, in *discovery.Inbound)) *discovery.Inbound {
	in := &discovery.Inbound{Chains: []discovery.FilterChain{{Routes: &discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{{
		Domains: []string{"*"}, Routes: []*discovery.Route{{Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/"}}, Local: true}},
	}}}}}}
	change(&in.Chains[0], in)
	return in
}

// TestGRPCServersRejectNothingButWhatIsRefused: of all that the model can say of
// an address of this process.
func TestGRPCServersRejectNothingButWhatIsRefused(t *testing.T) {
	t.Parallel()
	anybody := []discovery.RBACRule{{Kind: discovery.RBACAny}}
	rules := func(permissions, principals []discovery.RBACRule) *discovery.RBAC {
		return &discovery.RBAC{Rules: &discovery.RBACRules{Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{Name: "p", Permissions: permissions, Principals: principals}}}}
	}
	filter := func(config discovery.FilterConfig) func(*discovery.FilterChain, *discovery.Inbound) {
		return func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{{Name: "f", Config: config}}
		}
	}
	permission := func(r discovery.RBACRule) func(*discovery.FilterChain, *discovery.Inbound) {
		return filter(rules([]discovery.RBACRule{r}, anybody))
	}
	principal := func(r discovery.RBACRule) func(*discovery.FilterChain, *discovery.Inbound) {
		return filter(rules(anybody, []discovery.RBACRule{r}))
	}
	header := func(h discovery.HeaderMatch) discovery.RBACRule {
		return discovery.RBACRule{Kind: discovery.RBACHeader, Header: h}
	}
	exact := text(discovery.MatchExact, "a")
	secure := &discovery.DownstreamTLS{IdentityInstance: "default", RootInstance: "default", RequireClientCertificate: true}
	tests := []struct {
		name    string
		change  func(*discovery.FilterChain, *discovery.Inbound)
		refused string
		note    string
	}{
		{name: "plaintext", change: func(*discovery.FilterChain, *discovery.Inbound) {}},
		{name: "mutual TLS", change: func(c *discovery.FilterChain, _ *discovery.Inbound) { c.TLS = secure }},
		{name: "names of clients", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			own := *secure
			own.SANs = []discovery.StringMatch{text(discovery.MatchPrefix, "spiffe://a/"), text(discovery.MatchPrefix, "spiffe://b/")}
			c.TLS = &own
		}},
		{name: "TLS without a client certificate", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.TLS = &discovery.DownstreamTLS{IdentityInstance: "default"}
		}},
		{name: "a version of TLS", refused: "versions and ciphers", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			own := *secure
			own.MinVersion = 0x0304
			c.TLS = &own
		}},
		{name: "both", note: "unless the server serves on", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			plain := *c
			plain.Match.TransportProtocol, c.Match.TransportProtocol, c.TLS = "raw_buffer", "tls", secure
			in.Chains = append(in.Chains, plain)
		}},
		{name: "both, with other policies", note: "their policies differ", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			plain := *c
			plain.Match.TransportProtocol, c.Match.TransportProtocol, c.TLS = "raw_buffer", "tls", secure
			plain.Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: &discovery.RBACRules{}}}}
			in.Chains = append(in.Chains, plain)
		}},
		{name: "two chains for TLS", refused: "both for TLS", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			other := *c
			c.TLS, other.TLS, other.Match.ApplicationProtocols = secure, secure, []string{"istio"}
			in.Chains = append(in.Chains, other)
		}},
		{name: "a chain of another port", refused: "no filter chain matches", change: func(c *discovery.FilterChain, _ *discovery.Inbound) { c.Match.DestinationPort = 1 }},
		{name: "a default chain", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			in.Default, in.Chains = new(*c), nil
		}},
		{name: "allow nothing", change: filter(&discovery.RBAC{Rules: &discovery.RBACRules{}})},
		{name: "no rules, and rules on trial", note: "on trial", change: filter(&discovery.RBAC{Shadow: &discovery.RBACRules{}})},
		{name: "a log", note: "not reported", change: filter(&discovery.RBAC{Rules: &discovery.RBACRules{Action: discovery.RBACLog}})},
		{name: "sets", change: permission(discovery.RBACRule{Kind: discovery.RBACAnd, Rules: []discovery.RBACRule{
			{Kind: discovery.RBACOr, Rules: anybody}, {Kind: discovery.RBACNot, Rules: anybody}, {Kind: discovery.RBACPort, Start: 1, End: 65536}, {Kind: discovery.RBACPort, Start: 1, End: 2},
			{Kind: discovery.RBACPath, Text: &exact}, {Kind: discovery.RBACTemplate, Template: expression("/a/[^/]+")}, {Kind: discovery.RBACDestination, Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		}})},
		{name: "who", change: principal(discovery.RBACRule{Kind: discovery.RBACOr, Rules: []discovery.RBACRule{
			{Kind: discovery.RBACAnd, Rules: anybody}, {Kind: discovery.RBACNot, Rules: anybody}, {Kind: discovery.RBACPrincipal}, {Kind: discovery.RBACPrincipal, Text: &exact},
			{Kind: discovery.RBACDirectIP, Prefix: netip.MustParsePrefix("::1/128")}, {Kind: discovery.RBACRemoteIP, Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Kind: discovery.RBACPath, Text: &exact},
		}})},
		{name: "headers", change: permission(discovery.RBACRule{Kind: discovery.RBACAnd, Rules: []discovery.RBACRule{
			header(discovery.HeaderMatch{Name: ":authority", String: exact}), header(discovery.HeaderMatch{Name: "host", String: text(discovery.MatchSuffix, ".a")}),
			header(discovery.HeaderMatch{Name: ":authority", String: text(discovery.MatchPrefix, "a")}), header(discovery.HeaderMatch{Name: ":authority", String: text(discovery.MatchContains, "a")}),
			header(discovery.HeaderMatch{Name: ":authority", String: text(discovery.MatchRegex, "a+")}), header(discovery.HeaderMatch{Name: ":method", String: exact}),
			header(discovery.HeaderMatch{Name: "a", String: exact, Invert: true, TreatMissingAsEmpty: true}), header(discovery.HeaderMatch{Name: "a", Kind: discovery.HeaderPresent}),
		}})},
		{name: "a header of a principal", change: principal(header(discovery.HeaderMatch{Name: "a", String: exact, Invert: true, TreatMissingAsEmpty: true}))},
		{name: "the scheme", refused: `does not look at header ":scheme"`, change: permission(header(discovery.HeaderMatch{Name: ":scheme", String: exact}))},
		{name: "a header of gRPC", refused: `does not look at header "grpc-timeout"`, change: principal(header(discovery.HeaderMatch{Name: "grpc-timeout", String: exact}))},
		{name: "a binary header", refused: `decodes header "a-bin"`, change: permission(header(discovery.HeaderMatch{Name: "a-bin", String: exact}))},
		{name: "claims", refused: "what filters found out", change: principal(discovery.RBACRule{Kind: discovery.RBACMetadata})},
		{name: "claims within others", refused: "what filters found out", change: permission(discovery.RBACRule{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{{Kind: discovery.RBACMetadata}}})},
		{name: "SNI", refused: "SNI", change: permission(discovery.RBACRule{Kind: discovery.RBACServerName, Text: &exact})},
		{name: "a DNS name", refused: "a DNS name of a certificate", change: principal(discovery.RBACRule{Kind: discovery.RBACDNS, Text: &exact})},
		{name: "a client behind proxies", refused: "whatever x-forwarded-for says", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			principal(discovery.RBACRule{Kind: discovery.RBACRemoteIP, Prefix: netip.MustParsePrefix("10.0.0.0/8")})(c, in)
			c.Forwarding.Hops = 1
		}},
		{name: "tokens", refused: "cannot enforce JWTAuthn", change: filter(&discovery.JWTAuthn{})},
		{name: "an authorization service", refused: "cannot enforce ExtAuthz", change: filter(&discovery.ExtAuthz{GRPC: &discovery.AuthzGRPC{}})},
		{name: "tokens that are off", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{{Name: "f", Config: &discovery.JWTAuthn{}, Disabled: true}}
			c.Routes.VirtualHosts[0].Filters = map[string]discovery.FilterOverride{"f": {Disabled: true}}
		}},
		{name: "tokens that a route switches on", refused: "cannot enforce JWTAuthn", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{{Name: "f", Config: &discovery.JWTAuthn{}, Disabled: true}}
			c.Routes.VirtualHosts[0].Routes[0].Filters = map[string]discovery.FilterOverride{"f": {}}
		}},
		{name: "a fault", refused: "cannot enforce Fault", change: filter(&discovery.Fault{Abort: &discovery.FaultAbort{}})},
		{name: "a fault of a route", refused: "cannot enforce Fault", change: func(c *discovery.FilterChain, in *discovery.Inbound) {
			filter(&discovery.Fault{})(c, in)
			c.Routes.VirtualHosts[0].Filters = map[string]discovery.FilterOverride{"f": {Config: &discovery.Fault{Delay: &discovery.FaultDelay{}}}}
		}},
		{name: "no fault, CORS", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{{Name: "f", Config: &discovery.Fault{}}, {Name: "c", Config: &discovery.CORS{}}}
		}},
		{name: "a policy that routes change", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{
				{Name: "a", Config: rules(anybody, anybody)}, {Name: "b", Config: rules(anybody, anybody), Disabled: true}, {Name: "c", Config: rules(anybody, anybody)},
			}
			c.Routes.VirtualHosts[0].Filters = map[string]discovery.FilterOverride{"a": {Disabled: true}, "b": {}, "c": {Config: rules(anybody, anybody)}}
		}},
		{name: "a policy of a route that cannot be enforced", refused: "what filters found out", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Filters = []discovery.HTTPFilter{{Name: "a", Config: &discovery.RBAC{}}}
			c.Routes.VirtualHosts[0].Routes[0].Filters = map[string]discovery.FilterOverride{"a": {Config: rules(anybody, []discovery.RBACRule{{Kind: discovery.RBACMetadata}})}}
		}},
		{name: "policies of connections", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Network = []*discovery.RBAC{rules(anybody, []discovery.RBACRule{{Kind: discovery.RBACPrincipal, Text: &exact}}), rules(anybody, anybody)}
		}},
		{name: "policies of connections about requests", refused: "rules about requests", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Network = []*discovery.RBAC{rules([]discovery.RBACRule{{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &exact}}}}, anybody)}
		}},
		{name: "other routes and limits", note: "a server forwards nothing", change: func(c *discovery.FilterChain, _ *discovery.Inbound) {
			c.Routes.VirtualHosts[0].Routes = append(c.Routes.VirtualHosts[0].Routes, &discovery.Route{Forward: &discovery.Forward{}}, &discovery.Route{Direct: &discovery.DirectResponse{}})
			c.MaxStreamDuration, c.Headers.Count, c.Forwarding.RequestID = time.Second, 7, true
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newModelGuest(t)
			g.model.inbound.Value = inboundOf(tt.change)
			serve(t, g)
			rejected := g.settled(t)
			if tt.refused == "" && rejected != "" || !strings.Contains(rejected, tt.refused) {
				t.Errorf("rejected: %q, want %q", rejected, tt.refused)
			}
			if notes := g.notes(); !strings.Contains(notes, tt.note) || !strings.Contains(notes, tt.refused) {
				t.Errorf("notes:\n%swant %q %q", notes, tt.note, tt.refused)
			}
		})
	}
}

package rbac_test

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/internal/condition"
	"github.com/inboardmesh/inboard/internal/filter"
)

// verdict is what an expression is in one reading of a request.
type verdict uint8

const (
	no verdict = iota
	yes
	withoutValue
)

func is(b bool) []verdict {
	if b {
		return []verdict{yes}
	}
	return []verdict{no}
}

// referenceCondition is an expression, and the same in words of Go.
type referenceCondition struct {
	text     string
	verdicts func(x *filter.Exchange, cert *x509.Certificate, oneIsEnough bool) []verdict
	compiled *condition.Condition
}

func (c *referenceCondition) holds(x *filter.Exchange, cert *x509.Certificate, oneIsEnough bool) bool {
	for _, v := range c.verdicts(x, cert, oneIsEnough) {
		switch {
		case oneIsEnough && v != no:
			return true
		case !oneIsEnough && v != yes:
			return false
		}
	}
	return !oneIsEnough
}

// valuesOf are the readings of a header, from the sentence of D6.
func valuesOf(x *filter.Exchange, name string, apart bool) []string {
	values := x.Header.Values(name)
	if len(values) == 0 {
		return nil
	}
	all := append([]string{strings.Join(values, ",")}, values...)
	if apart {
		for _, v := range values {
			all = append(all, strings.TrimSpace(v))
			for part := range strings.SplitSeq(v, ",") {
				all = append(all, strings.TrimSpace(part))
			}
		}
	}
	return all
}

func ofEach(readings []string, missing verdict, holds func(string) bool) (verdicts []verdict) {
	for _, r := range readings {
		verdicts = append(verdicts, is(holds(r))...)
	}
	if len(readings) == 0 {
		return []verdict{missing}
	}
	return verdicts
}

func referenceConditions(t testing.TB) []*referenceCondition {
	all := []*referenceCondition{
		{text: `request.method == "GET"`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, _ bool) []verdict { return is(x.Method == http.MethodGet) }},
		{text: `request.headers["x-a"] == "a"`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, one bool) []verdict {
			return ofEach(valuesOf(x, "x-a", one), withoutValue, func(v string) bool { return v == "a" })
		}},
		{text: `"X-B" in request.headers && request.headers["x-b"] != "b"`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, _ bool) []verdict {
			return ofEach(valuesOf(x, "x-b", true), no, func(v string) bool { return v != "b" })
		}},
		{text: `request.url_path == "/é" || request.url_path.startsWith("/a")`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, _ bool) []verdict {
			decoded, _ := url.PathUnescape(x.Path)
			return ofEach([]string{x.Path, decoded}, no, func(v string) bool { return v == "/é" || strings.HasPrefix(v, "/a") })
		}},
		{text: `connection.uri_san_peer_certificate == "spiffe://td/a"`, verdicts: func(_ *filter.Exchange, cert *x509.Certificate, _ bool) []verdict {
			if cert == nil {
				return []verdict{withoutValue}
			}
			return ofEach(uris(cert), withoutValue, func(v string) bool { return v == "spiffe://td/a" })
		}},
		{text: `connection.mtls && connection.requested_server_name == "a"`, verdicts: func(x *filter.Exchange, cert *x509.Certificate, _ bool) []verdict {
			return is(cert != nil && x.TLS.ServerName == "a")
		}},
		{text: `source.port == 1 || destination.port < 8082`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, _ bool) []verdict {
			peer := netip.MustParseAddrPort(x.Facts.Peer)
			return is(peer.Addr().Unmap() == netip.MustParseAddr(x.Facts.Remote) || x.Facts.Local.(*net.TCPAddr).Port < 8082)
		}},
		{text: `metadata.filter_metadata["f"]["k"] == "a"`, verdicts: func(x *filter.Exchange, _ *x509.Certificate, _ bool) []verdict {
			v, ok := x.Metadata["f"]["k"]
			if !ok {
				return []verdict{withoutValue}
			}
			return is(v == "a")
		}},
	}
	for _, c := range all {
		c.compiled = calltest.Condition(t, c.text)
	}
	return all
}

// TestAConditionIsAskedBesidesTheRules: and decides in the same way for what
// denies and what allows.
func TestAConditionIsAskedBesidesTheRules(t *testing.T) {
	t.Parallel()
	rules := func(action discovery.RBACAction, permission discovery.RBACRule, text string) *discovery.RBACRules {
		return &discovery.RBACRules{Action: action, Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{permission}, Principals: []discovery.RBACRule{anything}, Condition: calltest.Condition(t, text),
		}}}
	}
	for _, tt := range []struct {
		name  string
		rules *discovery.RBACRules
		want  bool
	}{
		{"allowed by both", rules(discovery.RBACAllow, path(exact("/admin")), `request.method == "GET"`), true},
		{"not by the condition alone", rules(discovery.RBACAllow, path(exact("/other")), `request.method == "GET"`), false},
		{"not by the rules alone", rules(discovery.RBACAllow, path(exact("/admin")), `request.method == "PUT"`), false},
		{"denied by both", rules(discovery.RBACDeny, path(exact("/admin")), `request.method == "GET"`), false},
		{"not denied by the rules alone", rules(discovery.RBACDeny, path(exact("/admin")), `request.method == "PUT"`), true},
		{"denied by a condition without a value", rules(discovery.RBACDeny, anything, `request.headers["x-none"] == "a"`), false},
		{"not allowed by a condition without a value", rules(discovery.RBACAllow, anything, `request.headers["x-none"] != "a"`), false},
		{"a host in another case is the same", rules(discovery.RBACDeny, anything, `request.host == "payment.shop"`), false},
		{"with the port and a dot too", rules(discovery.RBACAllow, anything, `request.host != "payment.shop"`), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x := exchange(func(x *filter.Exchange) { x.Host = "PAYMENT.shop.:80" })
			if got := allows(t, &discovery.RBAC{Rules: tt.rules}, x); got != tt.want {
				t.Errorf("allowed %t, want %t", got, tt.want)
			}
		})
	}
}

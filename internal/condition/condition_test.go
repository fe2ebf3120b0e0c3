package condition_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/cel"
	exprpb "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/inboardmesh/inboard/internal/condition"
)

// parse makes the tree that a control plane would send.
func parse(t testing.TB, text string) *exprpb.Expr {
	t.Helper()
	env, err := cel.NewEnv()
	if err != nil {
		t.Fatal(err)
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		t.Fatalf("%s: %v", text, issues.Err())
	}
	tree, err := cel.AstToParsedExpr(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return tree.GetExpr()
}

func compile(t testing.TB, text string) *condition.Condition {
	t.Helper()
	c, err := condition.Compile(parse(t, text), true)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

func facts() *condition.Facts {
	headers := map[string][]string{
		"x-role": {"user", "admin"}, "x-list": {"a, b"}, "x-one": {"1"}, "x-empty": {""}, "user-agent": {"curl"}, "x-request-id": {"id"},
	}
	return &condition.Facts{
		Source: netip.MustParseAddrPort("10.1.2.3:4000"), Destination: netip.MustParseAddrPort("[2001:db8::1]:8080"),
		ServerName: "payment.shop", TLSVersion: tls.VersionTLS13,
		Certificate: &x509.Certificate{
			Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"a.shop", "b.shop"},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/a"}}, Raw: []byte("der"),
		},
		Request: &condition.Request{
			Method: "GET", Scheme: "https", Protocol: "HTTP/2", Query: "q=1", Paths: []string{"/%C3%A9", "/é"}, Hosts: []string{"payment:80", "payment"},
			Start:    time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
			Header:   func(name string) []string { return headers[name] },
			Metadata: map[string]map[string]any{"f": {"n": 2.0, "list": []any{"x", "y"}, "m": map[string]any{"k": "v"}, "no": nil, "yes": true}},
		},
	}
}

// TestAttributes: what an expression sees of a request that has all there is.
func TestAttributes(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`request.path.endsWith("?q=1")`, `request.url_path in ["/%C3%A9", "/é"]`, `request.host.startsWith("payment")`, `request.method == "GET"`,
		`request.scheme == "https"`, `request.protocol == "HTTP/2"`, `request.query == "q=1"`, `request.useragent == "curl"`, `request.id == "id"`,
		`request.time > timestamp("2026-03-04T00:00:00Z") && request.time.getHours() == 5`, `!has(request.referer) && has(request.id)`,
		`request.headers["X-One"] == "1"`, `request.headers.host.startsWith("payment")`, `request.headers[":path"].contains("?")`, `request.headers[":method"] == "GET"`,
		`"x-one" in request.headers && !("x-two" in request.headers)`, `has(request.headers.host) && !has(request.headers.nothing)`, `request.headers["x-empty"] == ""`,
		`source.address == "10.1.2.3:4000" && source.port == 4000`, `destination.address == "[2001:db8::1]:8080" && destination.port == 8080`,
		`connection.mtls && connection.requested_server_name == "payment.shop" && connection.tls_version == "TLSv1.3"`,
		`connection.subject_peer_certificate == "CN=a" && connection.uri_san_peer_certificate == "spiffe://td/a"`, `connection.dns_san_peer_certificate.endsWith(".shop")`,
		`connection.sha256_peer_certificate_digest.size() == 64`,
		`metadata.filter_metadata["f"]["n"] == 2.0 && "x" in metadata.filter_metadata["f"]["list"] && metadata.filter_metadata.f.m.k == "v"`,
		`metadata.filter_metadata["f"]["no"] == null && metadata.filter_metadata["f"]["yes"]`, `metadata.filter_metadata["f"]["yes"]`,
		`["a", "b"].exists(x, request.headers["x-list"].contains(x))`, `request.path.matches("^/.*$")`,
	} {
		c := compile(t, text)
		if !c.Holds(facts(), true) || !c.Holds(facts(), false) {
			t.Errorf("%s does not hold", text)
		}
	}
}

// TestV11_WhatIsNotCertainFailsClosed: certain is what an ALLOW asks for, and
// possible a DENY.
func TestV11_WhatIsNotCertainFailsClosed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text        string
		certain, possible bool
	}{
		{"true", `true`, true, true},
		{"false", `false`, false, false},
		{"a header that is missing", `request.headers["x-none"] == "a"`, false, true},
		{"a header that is missing, not", `request.headers["x-none"] != "a"`, false, true},
		{"an attribute that is missing", `request.referer == "a"`, false, true},
		{"what does not depend on the one that is missing", `request.referer == "a" || request.method == "GET"`, true, true},
		{"asked for first", `has(request.referer) && request.referer == "a"`, false, false},
		{"a header that is asked for first", `"x-none" in request.headers && request.headers["x-none"] == "a"`, false, false},
		{"metadata that is missing", `metadata.filter_metadata["g"]["k"] == "v"`, false, true},
		{"a value that is no bool", `metadata.filter_metadata["f"]["n"]`, false, true},
		{"a comparison of types that do not compare", `metadata.filter_metadata["f"]["list"] > 1`, false, true},
		{"a division by zero", `1 / (source.port - 4000) == 1`, false, true},
		{"headers that are counted", `size(request.headers) > 0`, false, true},
		{"headers that are gone through", `request.headers.exists(k, k == "x-role")`, false, true},
		{"headers that are compared", `request.headers == request.headers`, false, true},
		{"an unseen header that is computed", `request.headers["grpc-" + "timeout"] == "1S"`, false, true},
		{"more than the cost limit", `[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, a+b+c+d > 0))))`, false, true},
		{"D6: one of two values", `request.headers["x-role"] == "admin"`, false, true},
		{"D6: the values as a list", `request.headers["x-role"] == "user,admin"`, false, true},
		{"D6: not one of two values", `request.headers["x-role"] != "admin"`, false, true},
		{"D6: what all readings have", `request.headers["x-role"].contains("r") || request.headers["x-role"].contains("a")`, true, true},
		{"D6: a part of a joined value", `request.headers["x-list"] == "b"`, false, true},
		{"D6: a joined value", `request.headers["x-list"] == "a, b"`, true, true},
		{"D6: not a part of a joined value", `request.headers["x-list"] != "b"`, false, true},
		{"D6: not a part, in other words", `(request.headers["x-list"] == "b") == false`, false, true},
		{"D6: not a part, by a condition", `request.headers["x-list"] == "b" ? false : true`, false, true},
		{"the same reading in both places", `request.headers["x-role"] == "user" && request.headers["X-ROLE"] == "admin"`, false, false},
		{"a path that is written in two ways", `request.url_path == "/é"`, false, true},
		{"that the path is not one of them", `request.url_path != "/é"`, false, true},
		{"path and url_path are read alike", `request.path == request.url_path + "?q=1"`, true, true},
		{"a host without its port", `request.host == "payment"`, false, true},
		{"a certificate with two names", `connection.dns_san_peer_certificate == "b.shop"`, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := compile(t, tt.text)
			if got := c.Holds(facts(), true); got != tt.certain {
				t.Errorf("certain: %t", got)
			}
			if got := c.Holds(facts(), false); got != tt.possible {
				t.Errorf("possible: %t", got)
			}
		})
	}
}

func TestTooManyReadingsAreNotCertain(t *testing.T) {
	t.Parallel()
	f := facts()
	f.Request.Header = func(string) []string { return strings.Split(strings.Repeat("abcdefghijklmnop", 2), "") }
	c := compile(t, `request.headers["a"] + request.headers["b"] != "zz"`)
	if c.Holds(f, true) {
		t.Error("an ALLOW matches without having looked at all readings")
	}
	c = compile(t, `request.headers["a"] + request.headers["b"] == "zz"`)
	if !c.Holds(f, false) {
		t.Error("a DENY does not match without having looked at all readings")
	}
}

func TestConditionsOnConnections(t *testing.T) {
	t.Parallel()
	f := facts()
	f.Request, f.Certificate, f.TLSVersion = nil, nil, 0
	for text, want := range map[string][2]bool{
		`!connection.mtls && source.port == 4000`:                  {true, true},
		`connection.tls_version == "TLSv1.3"`:                      {false, true},
		`connection.uri_san_peer_certificate == "spiffe://td/a"`:   {false, true},
		`connection.subject_peer_certificate == "CN=a"`:            {false, true},
		`has(connection.uri_san_peer_certificate)`:                 {false, false},
		`connection.sha256_peer_certificate_digest.startsWith("")`: {false, true},
	} {
		c, err := condition.Compile(parse(t, text), false)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]bool{c.Holds(f, true), c.Holds(f, false)}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestWhatCannotBeDecidedIsRefused(t *testing.T) {
	t.Parallel()
	ident := func(name string) *exprpb.Expr {
		return &exprpb.Expr{ExprKind: &exprpb.Expr_IdentExpr{IdentExpr: &exprpb.Expr_Ident{Name: name}}}
	}
	deep := ident("a")
	for range 1000 {
		deep = &exprpb.Expr{ExprKind: &exprpb.Expr_SelectExpr{SelectExpr: &exprpb.Expr_Select{Operand: deep, Field: "a"}}}
	}
	for _, tt := range []struct {
		name    string
		expr    *exprpb.Expr
		request bool
		want    string
	}{
		{"another attribute", parse(t, `request.size == 1`), true, "undefined field 'size'"},
		{"another variable", parse(t, `response.code == 200`), true, "undeclared reference to 'response'"},
		{"the filter state", parse(t, `filter_state["a"] == "b"`), true, "undeclared reference to 'filter_state'"},
		{"a request of a connection", parse(t, `request.path == "/"`), false, "undeclared reference to 'request'"},
		{"metadata of a connection", parse(t, `metadata.filter_metadata["a"]["b"] == 1`), false, "undeclared reference to 'metadata'"},
		{"types that do not compare", parse(t, `request.path == 1`), true, "found no matching overload for '_==_'"},
		{"a text", parse(t, `request.path`), true, "must be true or false: is of type string"},
		{"a variable", parse(t, `request`), true, "must be true or false: is of type envoy.request"},
		{"a function that is not there", parse(t, `request.path.lowerAscii() == "/"`), true, "undeclared reference to 'lowerAscii'"},
		{"a pattern that is none", parse(t, `request.path.matches("(")`), true, "cannot be evaluated: "},
		{"a pattern of the request", parse(t, `"/".matches(request.path)`), true, "the pattern of matches must be a constant"},
		{"a header of gRPC", parse(t, `request.headers["GRPC-Timeout"] == "1S"`), true, `header "GRPC-Timeout" cannot be matched (gRFC A41)`},
		{"a header of one hop", parse(t, `has(request.headers.te)`), true, `header "te" cannot be matched`},
		{"a header in bytes", parse(t, `"x-bin" in request.headers`), true, `header "x-bin" cannot be matched`},
		{"the scheme", parse(t, `request.headers[":scheme"] == "http"`), true, `header ":scheme" cannot be matched`},
		{"nothing", &exprpb.Expr{}, true, ""},
		{"a nil tree", nil, true, ""},
		{"a call of nothing", &exprpb.Expr{ExprKind: &exprpb.Expr_CallExpr{}}, true, ""},
		{"too deep", deep, true, "maximum expression nesting depth"},
		{"too large", parse(t, `[`+strings.Repeat("1,", 3000)+`1] == []`), true, "node count exceeds limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := condition.Compile(tt.expr, tt.request)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestTheNumbersOfAStrangersTreeDoNotMatter: the checker keeps what it finds out
// by the numbers of the nodes, which may all be 0 here.
func TestTheNumbersOfAStrangersTreeDoNotMatter(t *testing.T) {
	t.Parallel()
	tree := parse(t, `request.method == "GET" && source.port == 4000 && request.headers["x-one"] == "1"`)
	var zero func(*exprpb.Expr)
	zero = func(e *exprpb.Expr) {
		e.Id = 0
		for _, arg := range e.GetCallExpr().GetArgs() {
			zero(arg)
		}
		if s := e.GetSelectExpr(); s != nil {
			zero(s.GetOperand())
		}
	}
	zero(tree)
	c, err := condition.Compile(tree, true)
	if err != nil {
		t.Fatal(err)
	}
	f := facts()
	if !c.Holds(f, true) {
		t.Error("does not hold")
	}
	f.Source = netip.MustParseAddrPort("10.1.2.3:4001")
	if c.Holds(f, false) {
		t.Error("holds for another port")
	}
}

func BenchmarkHolds(b *testing.B) {
	for name, text := range map[string]string{
		"constant":  `true`,
		"a header":  `request.headers["x-one"] == "1"`,
		"four":      `request.method == "GET" && source.port == 4000 && connection.mtls && request.headers["x-one"] == "1"`,
		"two paths": `request.url_path in ["/%C3%A9", "/é"]`,
	} {
		b.Run(name, func(b *testing.B) {
			c, f := compile(b, text), facts()
			b.ReportAllocs()
			for b.Loop() {
				c.Holds(f, true)
			}
		})
	}
}

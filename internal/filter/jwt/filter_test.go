package jwt_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/jwt"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

func TestG21_BadTokensAreRefused(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	f := build(t, config(required("p"), map[string]*discovery.JWTProvider{"p": provider(t, i)}))
	optional := build(t, config(anyOf(required("p"), missingAllowed()), map[string]*discovery.JWTProvider{"p": provider(t, i)}))
	for range 2 { // the second time from the cache
		if got := status(t, f, exchange(bearer(i.Token(nil)))); got != 200 {
			t.Fatalf("a good token: %d", got)
		}
	}
	battery := tokentest.Battery(i)
	if len(battery) < 60 {
		t.Errorf("only %d bad tokens", len(battery))
	}
	for _, bad := range battery {
		for name, f := range map[string]filter.Filter{"required": f, "optional": optional} {
			if got := status(t, f, exchange(bearer(bad.Token))); got != 401 && got != 403 {
				t.Errorf("%s, %s: %d", name, bad.Name, got)
			}
		}
	}
}

// TestV36_ATokenIsForItsProvider: another one does not take it, whatever of it is
// forged, nor from where the other's are.
func TestV36_ATokenIsForItsProvider(t *testing.T) {
	t.Parallel()
	a, b := tokentest.New("https://a.test"), tokentest.New("https://b.test")
	providers := map[string]*discovery.JWTProvider{"a": provider(t, a), "b": provider(t, b)}
	anyIssuer := provider(t, b)
	anyIssuer.Issuer = ""
	providers["b's keys, any issuer"] = anyIssuer
	for _, tt := range []struct {
		name, needs, token string
		want               int
	}{
		{"its own", "b", b.Token(nil), 200},
		{"that of another", "b", a.Token(nil), 401},
		{"that of another, which says it is its own", "b", a.Token(object{"iss": b.Name}), 401},
		{"that of another, with a key of its own", "a", b.Token(object{"iss": a.Name}), 401},
		{"that of another, for which the issuer does not matter", "b's keys, any issuer", a.Token(nil), 401},
	} {
		f := build(t, config(required(tt.needs), providers))
		for range 2 { // the second time what is remembered counts
			if got := status(t, f, exchange(bearer(tt.token))); got != tt.want {
				t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
			}
		}
	}
}

// TestV36_D6_OneTokenSaysWhoCalls: of two, a policy would read one and the application
// another.
func TestV36_D6_OneTokenSaysWhoCalls(t *testing.T) {
	t.Parallel()
	a, b := tokentest.New("https://a.test"), tokentest.New("https://b.test")
	providers := map[string]*discovery.JWTProvider{"a": provider(t, a), "b": provider(t, b)}
	for _, p := range providers {
		p.PayloadMetadata = "payload"
	}
	providers["b"].Headers = []discovery.JWTHeader{{Name: "x-b"}}
	good, banned := a.Token(object{"sub": "good"}), a.Token(object{"sub": "banned"})
	both := func() headers {
		h := bearer(good)
		h.Set("x-b", b.Token(nil))
		return h
	}
	inParameter := exchange(bearer(good))
	inParameter.Query = "access_token=" + banned
	twice := exchange(bearer(good))
	twice.Query = "access_token=" + good
	for name, tt := range map[string]struct {
		x     *filter.Exchange
		needs *discovery.JWTRequirement
		want  int
	}{
		"one":                       {exchange(bearer(good)), required("a"), 200},
		"two of one issuer":         {exchange(bearer(banned, good)), required("a"), 401},
		"in the other order":        {exchange(bearer(good, banned)), required("a"), 401},
		"one in a parameter":        {inParameter, required("a"), 401},
		"the same one twice":        {twice, required("a"), 200},
		"two of two issuers":        {exchange(both()), allOf(required("a"), required("b")), 401},
		"one of two, if one is due": {exchange(both()), anyOf(required("a"), required("b")), 200},
	} {
		if got := status(t, build(t, config(tt.needs, providers)), tt.x); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	for _, p := range providers {
		p.PayloadMetadata = p.Issuer // each says something of its own
	}
	x := exchange(both())
	if got := status(t, build(t, config(allOf(required("a"), required("b")), providers)), x); got != 200 {
		t.Errorf("two that say different things: %d", got)
	}
}

func TestS37_Requirements(t *testing.T) {
	t.Parallel()
	a, b := tokentest.New("https://a.test"), tokentest.New("https://b.test")
	shared := map[string]*discovery.JWTProvider{"a": provider(t, a), "b": provider(t, b)}
	apart := map[string]*discovery.JWTProvider{"a": provider(t, a), "b": provider(t, b)}
	apart["b"].Headers = []discovery.JWTHeader{{Name: "x-b"}}
	apart["b"].Params = nil
	expired := object{"exp": time.Now().Add(-time.Hour).Unix()}
	istio := anyOf(required("a"), required("b"),
		allOf(anyOf(required("a"), missingAllowed()), anyOf(required("b"), missingAllowed())))
	other := &discovery.JWTRequirement{Kind: discovery.JWTProviderRequired, Provider: "a", Audiences: []string{"bank"}}
	with := func(h headers, name, value string) headers {
		h.Add(name, value)
		return h
	}
	for _, test := range []struct {
		name      string
		requires  *discovery.JWTRequirement
		providers map[string]*discovery.JWTProvider
		headers   headers
		want      int
	}{
		{"a provider: none", required("a"), shared, headers{}, 401},
		{"a provider: its token", required("a"), shared, bearer(a.Token(nil)), 200},
		{"V36 a provider: the token of another", required("a"), shared, bearer(b.Token(nil)), 401},
		{"a provider: a token elsewhere", required("a"), shared, with(headers{}, "x-b", a.Token(nil)), 401},
		{"a provider: another scheme", required("a"), shared, with(headers{}, "authorization", "Basic "+a.Token(nil)), 401},
		{"a provider: the scheme in lower case", required("a"), shared, with(headers{}, "authorization", "bearer "+a.Token(nil)), 200},
		{"other audiences: the provider's", other, shared, bearer(a.Token(nil)), 403},
		{"other audiences: those", other, shared, bearer(a.Token(object{"aud": "bank"})), 200},
		{"V34 two good tokens", required("a"), shared, bearer(a.Token(nil), a.Token(object{"sub": "bob"})), 200},
		{"V34 a good and a bad token", required("a"), shared, bearer(a.Token(nil), "x.y.z"), 401},
		{"V34 a bad and a good token", required("a"), shared, bearer("x.y.z", a.Token(nil)), 401},
		{"V34 tokens of two issuers", required("a"), shared, bearer(a.Token(nil), b.Token(nil)), 401},
		{"V34 a field without a token before one with a good one", missingAllowed(), shared,
			with(with(headers{}, "authorization", "Token x.y.z"), "authorization", "Bearer "+a.Token(nil)), 401},
		{"V34 a field without a token behind one with a good one", missingAllowed(), shared,
			with(bearer(a.Token(nil)), "authorization", "x.y.z"), 401},
		{"V34 the prefix twice", missingAllowed(), shared, with(headers{}, "authorization", "Bearer,Bearer "+a.Token(nil)), 401},
		{"V34 a tab behind the scheme, a bad token", missingAllowed(), shared, with(headers{}, "authorization", "Bearer\tx.y.z"), 401},
		{"V34 a tab behind the scheme, a good token", required("a"), shared, with(headers{}, "authorization", "Bearer\t"+a.Token(nil)), 200},
		{"V34 a space before the scheme, a bad token", missingAllowed(), shared, with(headers{}, "authorization", " Bearer x.y.z"), 401},
		{"another scheme, and no token", missingAllowed(), shared, with(headers{}, "authorization", "Basic eDp5"), 200},
		{"a scheme that begins alike", missingAllowed(), shared, with(headers{}, "authorization", "Bearertoken x"), 200},
		{"two tokens in one header", required("a"), shared, with(headers{}, "authorization", "Bearer "+a.Token(nil)+", Bearer "+a.Token(nil)), 401},

		{"any: the first", anyOf(required("a"), required("b")), shared, bearer(a.Token(nil)), 200},
		{"any: the second", anyOf(required("a"), required("b")), shared, bearer(b.Token(nil)), 200},
		{"any: none", anyOf(required("a"), required("b")), shared, headers{}, 401},
		{"any: an expired one", anyOf(required("a"), required("b")), shared, bearer(a.Token(expired)), 401},

		{"all: both", allOf(required("a"), required("b")), apart, with(bearer(a.Token(nil)), "x-b", b.Token(nil)), 200},
		{"all: only one", allOf(required("a"), required("b")), apart, bearer(a.Token(nil)), 401},
		{"all: one is bad", allOf(required("a"), required("b")), apart, with(bearer(a.Token(nil)), "x-b", b.Token(expired)), 401},

		{"allow_missing: none", missingAllowed(), shared, headers{}, 200},
		{"allow_missing: a good one", missingAllowed(), shared, bearer(b.Token(nil)), 200},
		{"allow_missing: a bad one", missingAllowed(), shared, bearer(b.Token(expired)), 401},
		{"allow_missing: of an unknown issuer", missingAllowed(), shared, bearer(tokentest.New("https://c.test").Token(nil)), 401},
		{"allow_missing: no token at all", missingAllowed(), shared, bearer("hello"), 401},
		{"allow_missing beside a provider: none", anyOf(missingAllowed(), required("a")), shared, headers{}, 200},
		{"allow_missing beside a provider: a bad one", anyOf(missingAllowed(), required("a")), shared, bearer(a.Token(expired)), 401},
		{"allow_missing beside a provider: the other's", anyOf(missingAllowed(), required("a")), shared, bearer(b.Token(nil)), 401},

		{"allow_missing in a list of all is about every provider", anyOf(required("a"), allOf(missingAllowed())), apart, with(headers{}, "x-b", b.Token(expired)), 401},

		{"allow_missing_or_failed: none", failedAllowed(), shared, headers{}, 200},
		{"allow_missing_or_failed: a bad one", failedAllowed(), shared, bearer(a.Token(expired)), 200},

		{"two issuers as Istio has it: none", istio, shared, headers{}, 200},
		{"two issuers as Istio has it: the first's", istio, shared, bearer(a.Token(nil)), 200},
		{"two issuers as Istio has it: the second's", istio, shared, bearer(b.Token(nil)), 200},
		{"two issuers as Istio has it: a stranger's", istio, shared, bearer(tokentest.New("https://c.test").Token(nil)), 401},
		{"two issuers as Istio has it: an expired one", istio, shared, bearer(b.Token(expired)), 401},
		{"two issuers as Istio has it: wrong audience", istio, shared, bearer(b.Token(object{"aud": "bank"})), 403},

		{"nothing", nil, shared, bearer("x.y.z"), 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := status(t, build(t, config(test.requires, test.providers)), exchange(test.headers)); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

func TestRulesAndRoutes(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	rule := func(prefix string, r *discovery.JWTRequirement) discovery.JWTRule {
		return discovery.JWTRule{Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: prefix}}, Requires: r}
	}
	c := &discovery.JWTAuthn{
		Providers:           map[string]*discovery.JWTProvider{"p": provider(t, i)},
		Rules:               []discovery.JWTRule{rule("/open", nil), rule("/pa", required("p"))},
		Requirements:        map[string]*discovery.JWTRequirement{"it": required("p")},
		BypassCORSPreflight: true,
	}
	f := build(t, c)
	at := func(method, path string, h headers) *filter.Exchange {
		x := exchange(h)
		x.Method, x.Path = method, path
		return x
	}
	preflight := headers{"origin": {"https://a.test"}, "access-control-request-method": {"GET"}}
	for _, test := range []struct {
		name string
		x    *filter.Exchange
		want int
	}{
		{"a rule that needs nothing", at("GET", "/open", headers{}), 200},
		{"a rule that needs a token", at("GET", "/path", headers{}), 401},
		{"no rule", at("GET", "/other", headers{}), 200},
		{"a CORS preflight request", at("OPTIONS", "/path", preflight), 200},
		{"one without an origin", at("OPTIONS", "/path", headers{"access-control-request-method": {"GET"}}), 401},
		{"one with another method", at("GET", "/path", preflight), 401},
	} {
		if got := status(t, f, test.x); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	if !f.Guards() {
		t.Error("what it needs does not depend on the path")
	}
	if build(t, config(required("p"), c.Providers)).Guards() {
		t.Error("what is the same for all paths depends on the path")
	}
	named, err := f.Override(&discovery.JWTPerRoute{Requirement: "it"})
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, named, at("GET", "/open", headers{})); got != 401 {
		t.Errorf("a route with a requirement: %d", got)
	}
	off, err := f.Override(&discovery.JWTPerRoute{})
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, off, at("GET", "/path", headers{})); got != 200 {
		t.Errorf("a route without one: %d", got)
	}
	if _, err := f.Override(&discovery.JWTPerRoute{Requirement: "that"}); err == nil || !strings.Contains(err.Error(), `"that" is not in requirement_map`) {
		t.Errorf("a route with an unknown one: %v", err)
	}
	if _, err := f.Override(&discovery.Fault{}); err == nil {
		t.Error("a fault is no configuration of it")
	}
}

func TestWhatIsAskedOfTokens(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	hour := time.Now().Add(time.Hour).Unix()
	for _, test := range []struct {
		name   string
		change func(*discovery.JWTProvider)
		claims object
		want   int
	}{
		{"any issuer", func(p *discovery.JWTProvider) { p.Issuer = "" }, object{"iss": "https://x.test"}, 200},
		{"any audience", func(p *discovery.JWTProvider) { p.Audiences = nil }, object{"aud": nil}, 200},
		{"an audience with a scheme", func(p *discovery.JWTProvider) { p.Audiences = []string{"https://shop/"} }, nil, 200},
		{"an audience that is empty", func(p *discovery.JWTProvider) { p.Audiences = []string{""} }, object{"aud": ""}, 403},
		{"an audience that is a slash", func(p *discovery.JWTProvider) { p.Audiences = []string{"shop"} }, object{"aud": "/"}, 403},
		{"a subject", func(p *discovery.JWTProvider) {
			p.Subjects = &discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "ali"}
		}, nil, 200},
		{"another subject", func(p *discovery.JWTProvider) {
			p.Subjects = &discovery.StringMatch{Kind: discovery.MatchPrefix, Value: "bob"}
		}, nil, 401},
		{"no subject", func(p *discovery.JWTProvider) { p.Subjects = &discovery.StringMatch{Kind: discovery.MatchPrefix} }, object{"sub": nil}, 401},
		{"an expiry", func(p *discovery.JWTProvider) { p.RequireExpiration = true }, nil, 200},
		{"no expiry", func(p *discovery.JWTProvider) { p.RequireExpiration = true }, object{"exp": nil}, 401},
		{"a short life", func(p *discovery.JWTProvider) { p.MaxLifetime = 2 * time.Hour }, nil, 200},
		{"a long life", func(p *discovery.JWTProvider) { p.MaxLifetime = 10 * time.Minute }, object{"exp": hour}, 401},
		{"an endless life", func(p *discovery.JWTProvider) { p.MaxLifetime = 10 * time.Minute }, object{"exp": nil}, 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := provider(t, i)
			test.change(p)
			f := build(t, config(required("p"), map[string]*discovery.JWTProvider{"p": p}))
			for range 2 { // the second time from the cache
				if got := status(t, f, exchange(bearer(i.Token(test.claims)))); got != test.want {
					t.Errorf("%d, want %d", got, test.want)
				}
			}
		})
	}
}

func TestWhereTokensAre(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	good, bad := i.Token(nil), i.Token(object{"aud": "bank"})
	p := provider(t, i)
	p.Headers = []discovery.JWTHeader{{Name: "x-jwt"}, {Name: "x-token", Prefix: "Token "}}
	p.Params, p.Cookies = []string{"t", "ü"}, []string{"session"}
	for _, test := range []struct {
		name          string
		headers       headers
		query         string
		want          int
		rest, kept    string // the header and the query afterwards
		headerOfToken string
	}{
		{name: "a header", headers: headers{"x-jwt": {good}}, want: 200, headerOfToken: "x-jwt"},
		{name: "a header with a prefix", headers: headers{"x-token": {"Token " + good}}, want: 200, headerOfToken: "x-token"},
		{name: "a header with another prefix", headers: headers{"x-token": {"Bearer " + good}}, want: 401},
		{name: "the default header, which is not looked at", headers: bearer(good), want: 401},
		{name: "a parameter", query: "a=1&t=" + good + "&b=%20", want: 200, kept: "a=1&b=%20"},
		{name: "an escaped parameter", query: "%74=" + strings.ReplaceAll(good, ".", "%2E"), want: 200},
		{name: "a parameter beyond ASCII", query: "%C3%BC=" + good, want: 200},
		{name: "a parameter twice, one of them bad", query: "t=" + good + "&t=" + bad, want: 403, kept: "t=" + good + "&t=" + bad},
		{name: "an empty parameter", query: "t=", want: 401, kept: "t="},
		{name: "a cookie", headers: headers{"cookie": {"a=b; session=" + good}}, want: 200},
		{name: "a quoted cookie", headers: headers{"cookie": {`session="` + good + `"`}}, want: 200},
		{name: "a cookie twice, one of them bad", headers: headers{"cookie": {"session=" + good + "; session=" + bad}}, want: 403},
		{name: "V34 space behind the name of a cookie, a bad one", headers: headers{"cookie": {"session =" + bad}}, want: 403},
		{name: "V34 a tab behind the name of a cookie, beside a good one", headers: headers{"cookie": {"session\t=" + bad + "; session=" + good}}, want: 403},
		{name: "a cookie in two headers, one of them bad", headers: headers{"cookie": {"session=" + good, "session=" + bad}}, want: 403},
		{name: "a good header and a bad parameter", headers: headers{"x-jwt": {good}}, query: "t=" + bad, want: 403, kept: "t=" + bad},
		{name: "too many", headers: headers{"x-jwt": slices.Collect(func(yield func(string) bool) {
			for n := range 20 {
				if !yield(i.Token(object{"n": n})) {
					return
				}
			}
		})}, want: 401},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := test.headers
			if h == nil {
				h = headers{}
			}
			x := exchange(h)
			x.Query = test.query
			f := build(t, config(required("p"), map[string]*discovery.JWTProvider{"p": p}))
			if got := status(t, f, x); got != test.want {
				t.Fatalf("%d, want %d", got, test.want)
			}
			if x.Query != test.kept {
				t.Errorf("the query is %q, want %q", x.Query, test.kept)
			}
			if test.headerOfToken != "" && h.Values(test.headerOfToken) != nil {
				t.Error("the token was handed on")
			}
		})
	}
}

func TestV38_HeadersOfClaimsAreTheFilters(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	p := provider(t, i)
	p.Forward, p.PayloadHeader = true, "x-claims"
	p.ClaimHeaders = []discovery.JWTClaimHeader{
		{Header: "x-role", Path: []string{"realm", "role"}},
		{Header: "x-age", Path: []string{"age"}},
		{Header: "x-admin", Path: []string{"admin"}},
		{Header: "x-groups", Path: []string{"groups"}},
		{Header: "x-url", Path: []string{"https://claims.test/a.b"}},
	}
	spoofed := func(h headers) headers {
		for _, name := range []string{"x-claims", "x-role", "x-age", "x-admin", "x-groups", "x-url"} {
			h[name] = []string{"spoofed", "twice"}
		}
		return h
	}
	claims := object{
		"realm": object{"role": "root"}, "age": 41, "admin": true, "groups": []string{"a", "b"},
		"https://claims.test/a.b": "url",
	}
	f := build(t, config(anyOf(required("p"), missingAllowed()), map[string]*discovery.JWTProvider{"p": p}))
	raw := i.Token(claims)
	h := spoofed(bearer(raw))
	if got := status(t, f, exchange(h)); got != 200 {
		t.Fatal(got)
	}
	want := map[string]string{
		"x-claims": strings.Split(raw, ".")[1], "x-role": "root", "x-age": "41", "x-admin": "true",
		"x-groups": base64.StdEncoding.EncodeToString([]byte(`["a","b"]`)), "x-url": "url",
	}
	for name, value := range want {
		if got := words(h, name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if len(h["authorization"]) != 1 {
		t.Error("the token that is to be forwarded is gone")
	}
	for name, h := range map[string]headers{
		"a token without the claims":             bearer(i.Token(nil)),
		"no token":                               {},
		"claims that no header can hold":         bearer(i.Token(object{"realm": object{"role": "a\r\nx-admin: true"}})),
		"claims of other kinds than can be used": bearer(i.Token(object{"realm": "x", "age": nil, "admin": nullClaim})),
	} {
		if got := status(t, f, exchange(spoofed(h))); got != 200 {
			t.Errorf("%s: %d", name, got)
		}
		for _, header := range []string{"x-role", "x-age", "x-admin"} {
			if got := words(h, header); got != "" {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
	}
	for name, c := range map[string]*discovery.JWTAuthn{
		"no rule for the request": {Providers: map[string]*discovery.JWTProvider{"p": p}},
	} {
		h := spoofed(headers{})
		if got := status(t, build(t, c), exchange(h)); got != 200 || len(h) != 0 {
			t.Errorf("%s: %d, %v", name, got, h)
		}
	}
	allowing := config(required("p"), map[string]*discovery.JWTProvider{"p": p})
	allowing.BypassCORSPreflight = true
	preflight := spoofed(headers{"origin": {"https://a.test"}, "access-control-request-method": {"GET"}})
	x := exchange(preflight)
	x.Method = http.MethodOptions
	if got := status(t, build(t, allowing), x); got != 200 || len(preflight) != 2 {
		t.Errorf("a CORS preflight request: %d, %v", got, preflight)
	}
	off, err := f.Override(&discovery.JWTPerRoute{})
	if err != nil {
		t.Fatal(err)
	}
	h = spoofed(headers{})
	if got := status(t, off, exchange(h)); got != 200 || len(h) != 0 {
		t.Errorf("a route without a requirement: %d, %v", got, h)
	}
}

var nullClaim *int

func TestMetadataAndRoutes(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	p := provider(t, i)
	p.PayloadMetadata, p.HeaderMetadata, p.FailureMetadata = "payload", "header", "failure"
	p.SpaceDelimited, p.ClearRoute = []string{"scope", "missing"}, true
	f := build(t, config(anyOf(required("p"), failedAllowed()), map[string]*discovery.JWTProvider{"p": p}))
	raw := i.Token(object{"scope": "read  write", "sub": "alice"})
	for range 2 { // the second time from the cache: the claims are still what they were
		x := exchange(bearer(raw))
		if got := status(t, f, x); got != 200 {
			t.Fatal(got)
		}
		payload := x.Metadata[jwt.Namespace]["payload"].(map[string]any)
		if diff := cmp.Diff([]any{"read", "write"}, payload["scope"]); diff != "" || payload["sub"] != "alice" {
			t.Errorf("payload %v", payload)
		}
		if header := x.Metadata[jwt.Namespace]["header"].(map[string]any); header["kid"] != "rsa" {
			t.Errorf("header %v", header)
		}
	}
	x := exchange(bearer(i.Token(object{"exp": 1})))
	if got := status(t, f, x); got != 200 {
		t.Fatal(got)
	}
	want := map[string]any{"failure": map[string]any{"code": "3", "message": "Jwt is expired"}}
	if diff := cmp.Diff(want, x.Metadata[jwt.Namespace]); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	c := config(required("p"), map[string]*discovery.JWTProvider{"p": provider(t, i)})
	refuse := func(c *discovery.JWTAuthn, h headers) *filter.Answer {
		x := exchange(h)
		x.Host, x.Query = `shop"`, "access_token=secret"
		if len(h) == 0 {
			x.Query = ""
		}
		answer, err := build(t, c).Request(t.Context(), x)
		if err != nil || answer == nil {
			t.Fatal(answer, err)
		}
		return answer
	}
	missing := refuse(c, headers{})
	if missing.Status != 401 || string(missing.Body) != "Jwt is missing" || missing.Reason != "Jwt is missing" {
		t.Errorf("missing: %+v", missing)
	}
	if got := missing.Headers; len(got) != 1 || got[0] != (filter.Header{Name: "www-authenticate", Value: `Bearer realm="http://shop/path"`}) {
		t.Errorf("missing: %v", got)
	}
	expired := refuse(c, bearer(i.Token(object{"exp": 1})))
	if got := expired.Headers[0].Value; got != `Bearer realm="http://shop/path", error="invalid_token"` {
		t.Errorf("expired: %s", got)
	}
	c.StripFailureResponse = true
	if got := refuse(c, headers{}); got.Status != 401 || got.Body != nil || got.Headers != nil || got.Reason != "" {
		t.Errorf("stripped: %+v", got)
	}
}

func TestUnknownProvidersAreRefused(t *testing.T) {
	t.Parallel()
	store := jwt.NewStore(newIssuer().fetch, noHooks())
	defer store.Close()
	for want, c := range map[string]*discovery.JWTAuthn{
		`rules[0]: provider "p" is not configured`:             config(required("p"), nil),
		`requirement_map["m"]: provider "p" is not configured`: {Requirements: map[string]*discovery.JWTRequirement{"m": anyOf(required("p"))}},
		`rules[0]: requirement of the unknown kind 99`:         config(&discovery.JWTRequirement{Kind: 99}, nil),
	} {
		if _, err := store.Filter(c); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	i := tokentest.New(tokentest.Name)
	good := i.Token(nil)
	f.Add("Bearer "+good, "access_token="+good, "session="+good)
	f.Add("bearer  "+good, "a=b&access_token=%zz&%61ccess_token=", `session="a"; session`)
	f.Add("Bearer", "&&=&", ";;=;")
	f.Add("", "", "session =x; session="+good)
	f.Fuzz(func(t *testing.T, authorization, query, cookie string) {
		p := provider(t, i)
		p.Cookies = []string{"session"}
		f := build(t, config(anyOf(required("p"), missingAllowed()), map[string]*discovery.JWTProvider{"p": p}))
		x := exchange(headers{"authorization": {authorization}, "cookie": {cookie}})
		x.Query = query
		before := x.Query
		passes := status(t, f, x) == 200
		if !passes && x.Query != before {
			t.Fatal("a request that was refused was changed")
		}
		// Whatever an application of net/http would take for the token was verified.
		application := http.Request{Header: http.Header{"Cookie": {cookie}}}
		for _, c := range application.CookiesNamed("session") {
			if passes && c.Value != "" && c.Value != good {
				t.Fatalf("the cookie %q was not verified", c.Value)
			}
		}
		values, _ := url.ParseQuery(before)
		for _, value := range values["access_token"] {
			if passes && value != good {
				t.Fatalf("the parameter %q was not verified", value)
			}
		}
		if passes && strings.Contains(x.Query, "access_token=") && strings.Contains(before, good) {
			for pair := range strings.SplitSeq(x.Query, "&") {
				if pair == "access_token="+good {
					t.Fatal("the token was handed on")
				}
			}
		}
	})
}

var _ route.HeaderMap = headers(nil)

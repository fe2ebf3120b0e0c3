package jwt

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/token"
)

// Namespace is where the filter leaves its metadata.
const Namespace = "envoy.filters.http.jwt_authn"

// Filter is the filter of one configuration.
type Filter struct {
	config   *discovery.JWTAuthn
	compiler compiler
	// rules finds the rule of a request: its routes are the rules, and each is a
	// key of requires.
	rules    *route.Table
	requires map[*discovery.Route]requirement
	named    map[string]requirement
	// fixed is the requirement of a route, which no rule changes; nil for none.
	fixed requirement
}

var (
	_ filter.Overridable = (*Filter)(nil)
	_ filter.Guard       = (*Filter)(nil)
)

// Filter returns the filter of a configuration.
func (s *Store) Filter(config *discovery.JWTAuthn) (*Filter, error) {
	f := &Filter{
		config: config, requires: make(map[*discovery.Route]requirement), named: make(map[string]requirement),
		compiler: compiler{providers: make(map[string]*provider, len(config.Providers))},
	}
	for _, name := range slices.Sorted(maps.Keys(config.Providers)) {
		p := &provider{name: name, config: config.Providers[name]}
		p.cache = newCache(p.config.CacheSize)
		if p.config.RemoteKeys != nil {
			p.remote = s.keys(name, p.config.RemoteKeys)
		}
		f.compiler.providers[name] = p
		f.compiler.all = append(f.compiler.all, p)
	}
	var err error
	for name, r := range config.Requirements {
		if f.named[name], err = f.compiler.compile(r); err != nil {
			return nil, fmt.Errorf("requirement_map[%q]: %w", name, err)
		}
	}
	table := &discovery.VirtualHost{Domains: []string{"*"}}
	for i := range config.Rules {
		rule := &discovery.Route{Match: config.Rules[i].Match, Local: true}
		table.Routes = append(table.Routes, rule)
		if f.requires[rule], err = f.compiler.compile(config.Rules[i].Requires); err != nil {
			return nil, fmt.Errorf("rules[%d]: %w", i, err)
		}
	}
	f.rules = route.Compile(&discovery.RouteTable{VirtualHosts: []*discovery.VirtualHost{table}})
	return f, nil
}

// Guards reports whether what a request needs depends on what it is: then its
// path must have one reading (V14). A rule for all paths does not.
func (f *Filter) Guards() bool {
	for i := range f.config.Rules {
		if m := &f.config.Rules[i].Match; m.Path.Kind != discovery.PathPrefix || m.Path.Value != "/" {
			return true
		}
	}
	return false
}

// Override returns the filter for the routes with a [discovery.JWTPerRoute].
func (f *Filter) Override(config discovery.FilterConfig) (filter.Filter, error) {
	own, ok := config.(*discovery.JWTPerRoute)
	if !ok {
		return nil, fmt.Errorf("%T is no configuration of this filter in a route", config)
	}
	override := *f
	override.fixed = nothing{}
	if own.Requirement != "" {
		if override.fixed, ok = f.named[own.Requirement]; !ok {
			return nil, fmt.Errorf("requirement_name: %q is not in requirement_map", own.Requirement)
		}
	}
	return &override, nil
}

// requirement is what a request needs.
func (f *Filter) requirement(req *route.Request) requirement {
	if f.fixed != nil {
		return f.fixed
	}
	if d, ok := f.rules.Match(req); ok {
		return f.requires[d.Route]
	}
	return nothing{}
}

// Request verifies the tokens of a request.
func (f *Filter) Request(ctx context.Context, x *filter.Exchange) (*filter.Answer, error) {
	// The requirement may depend on headers, so it is found before some are
	// removed.
	required := f.requirement(&x.Request)
	for _, p := range f.compiler.all {
		p.sanitize(x)
	}
	if f.config.BypassCORSPreflight && isPreflight(&x.Request) {
		return nil, nil
	}
	v := verification{request: &x.Request}
	status, tokens, err := required.fulfilled(ctx, &v)
	if err != nil {
		return nil, err
	}
	if status == token.OK && several(tokens) {
		status = token.Several
	}
	values := v.failureMetadata()
	if status != token.OK {
		if len(values) > 0 {
			x.SetMetadata(Namespace, values)
		}
		return f.refuse(&x.Request, status), nil
	}
	for i := range tokens {
		tokens[i].apply(x, values)
	}
	if len(values) > 0 {
		x.SetMetadata(Namespace, values)
	}
	return nil, nil
}

// several reports whether different tokens say the same of a request, who calls: then
// what a policy and what an application reads need not be the same one. Istio leaves
// it undefined; a policy that denies one of them must not.
func several(tokens []accepted) bool {
	for i := range tokens {
		for j := range tokens[:i] {
			a, b := &tokens[i], &tokens[j]
			if a.found.raw != b.found.raw && a.provider.config.PayloadMetadata != "" && a.provider.config.PayloadMetadata == b.provider.config.PayloadMetadata {
				return true
			}
		}
	}
	return false
}

// failureMetadata says why tokens were refused, where that is asked for.
func (v *verification) failureMetadata() map[string]any {
	values := make(map[string]any)
	for p, status := range v.failures {
		if key := p.config.FailureMetadata; key != "" {
			values[key] = map[string]any{"code": strconv.Itoa(int(status)), "message": status.String()}
		}
	}
	return values
}

// isPreflight recognizes a CORS preflight request, by the Fetch standard.
func isPreflight(req *route.Request) bool {
	return req.Method == http.MethodOptions &&
		nonEmpty(req.Header.Values("origin")) && nonEmpty(req.Header.Values("access-control-request-method"))
}

func nonEmpty(values []string) bool { return len(values) > 0 && values[0] != "" }

// refuse is the answer to a request without the tokens that it needs.
func (f *Filter) refuse(req *route.Request, status token.Status) *filter.Answer {
	answer := &filter.Answer{Status: http.StatusUnauthorized}
	if status == token.AudienceForbidden {
		answer.Status = http.StatusForbidden
	}
	if f.config.StripFailureResponse {
		return answer
	}
	answer.Reason = status.String()
	answer.Body = []byte(answer.Reason)
	challenge := `Bearer realm="` + realm(req) + `"`
	if status != token.Missing {
		challenge += `, error="invalid_token"`
	}
	answer.Headers = []filter.Header{{Name: "www-authenticate", Value: challenge}}
	return answer
}

// realm is the URL that was asked for, without its query, which may hold the
// token, and in a form that a quoted string can hold.
func realm(req *route.Request) string {
	const longest = 256
	url := req.Scheme + "://" + req.Host + req.Path
	clean := make([]byte, 0, min(len(url), longest))
	for i := 0; i < len(url) && len(clean) < longest; i++ {
		if c := url[i]; c > ' ' && c < 0x7f && c != '"' && c != '\\' {
			clean = append(clean, c)
		}
	}
	return string(clean)
}

package jwt

import (
	"context"
	"fmt"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/token"
)

// requirement is a compiled requirement.
type requirement interface {
	// fulfilled tells whether a request meets the requirement, and by which
	// tokens.
	fulfilled(ctx context.Context, v *verification) (token.Status, []accepted, error)
}

// verification is the tokens of one request. What was found out about a token
// is remembered: one that several requirements look at is verified once.
type verification struct {
	request  *route.Request
	verdicts map[verdictKey]verdict
	// failures are why providers have refused tokens, for the metadata.
	failures map[*provider]token.Status
}

type verdictKey struct {
	provider *provider
	raw      string
	required *providerRequired // whose audiences are other ones; nil for the provider's
}

type verdict struct {
	token  *token.Token
	status token.Status
}

func (v *verification) verify(ctx context.Context, p *provider, raw string, required *providerRequired) (*token.Token, token.Status, error) {
	key := verdictKey{provider: p, raw: raw}
	var audiences []string
	if required != nil && required.audiences != nil {
		key.required, audiences = required, required.audiences
	}
	known, ok := v.verdicts[key]
	if !ok {
		var err error
		known.token, known.status, err = p.verify(ctx, raw, audiences)
		if err != nil {
			return nil, known.status, err
		}
		if v.verdicts == nil {
			v.verdicts = make(map[verdictKey]verdict)
		}
		v.verdicts[key] = known
	}
	return known.token, known.status, nil
}

func (v *verification) failed(p *provider, status token.Status) {
	if v.failures == nil {
		v.failures = make(map[*provider]token.Status)
	}
	v.failures[p] = status
}

// providerRequired is a valid token of one provider; all tokens where it looks
// must be.
type providerRequired struct {
	provider  *provider
	audiences []string // nil for the provider's
}

func (r *providerRequired) fulfilled(ctx context.Context, v *verification) (token.Status, []accepted, error) {
	tokens, ok := find([]*provider{r.provider}, v.request)
	if !ok {
		return token.BadFormat, nil, nil
	}
	if len(tokens) == 0 {
		v.failed(r.provider, token.Missing)
		return token.Missing, nil, nil
	}
	var good []accepted
	for i := range tokens {
		t, status, err := v.verify(ctx, r.provider, tokens[i].raw, r)
		if err != nil {
			return status, nil, err
		}
		if status != token.OK {
			v.failed(r.provider, status)
			return status, nil, nil
		}
		good = append(good, accepted{provider: r.provider, found: &tokens[i], token: t})
	}
	return token.OK, good, nil
}

// anyOf is one of several. If none is fulfilled, the reason is that of the one
// that came nearest: that a token is another issuer's, or is not there, is said
// only if nothing else is wrong.
type anyOf []requirement

func (r anyOf) fulfilled(ctx context.Context, v *verification) (token.Status, []accepted, error) {
	status := token.Missing
	for _, one := range r {
		s, good, err := one.fulfilled(ctx, v)
		if err != nil || s == token.OK {
			return s, good, err
		}
		if nearness(s) >= nearness(status) {
			status = s
		}
	}
	return status, nil, nil
}

func nearness(s token.Status) int {
	switch s {
	case token.Missing:
		return 0
	case token.UnknownIssuer:
		return 1
	}
	return 2
}

// allOf is each of several.
type allOf []requirement

func (r allOf) fulfilled(ctx context.Context, v *verification) (token.Status, []accepted, error) {
	var all []accepted
	for _, one := range r {
		status, good, err := one.fulfilled(ctx, v)
		if err != nil || status != token.OK {
			return status, nil, err
		}
		all = append(all, good...)
	}
	return token.OK, all, nil
}

// optional is no token, or valid ones, of several providers; with failed also
// tokens that are not valid, which then say nothing.
type optional struct {
	providers []*provider
	failed    bool
}

func (r *optional) fulfilled(ctx context.Context, v *verification) (token.Status, []accepted, error) {
	tokens, ok := find(r.providers, v.request)
	if !ok && !r.failed {
		return token.BadFormat, nil, nil
	}
	var all []accepted
	for i := range tokens {
		status, good, err := r.one(ctx, v, &tokens[i])
		if err != nil {
			return status, nil, err
		}
		if status == token.OK {
			all = append(all, good)
		} else if !r.failed {
			return status, nil, nil
		}
	}
	return token.OK, all, nil
}

// one verifies a token with the provider that it is from: that of its issuer,
// else one without an issuer of its own.
func (r *optional) one(ctx context.Context, v *verification, f *found) (token.Status, accepted, error) {
	parsed, status := token.Parse(f.raw)
	if status != token.OK {
		for _, p := range f.providers {
			v.failed(p, status)
		}
		return status, accepted{}, nil
	}
	i := slices.IndexFunc(f.providers, func(p *provider) bool { return p.config.Issuer != "" && p.config.Issuer == parsed.Issuer })
	if i < 0 {
		i = slices.IndexFunc(f.providers, func(p *provider) bool { return p.config.Issuer == "" })
	}
	if i < 0 {
		for _, p := range f.providers {
			v.failed(p, token.UnknownIssuer)
		}
		return token.UnknownIssuer, accepted{}, nil
	}
	p := f.providers[i]
	t, status, err := v.verify(ctx, p, f.raw, nil)
	if err == nil && status != token.OK {
		v.failed(p, status)
	}
	return status, accepted{provider: p, found: f, token: t}, err
}

// nothing is fulfilled always.
type nothing struct{}

func (nothing) fulfilled(context.Context, *verification) (token.Status, []accepted, error) {
	return token.OK, nil, nil
}

// compiler makes requirements of the providers of one configuration.
type compiler struct {
	providers map[string]*provider
	all       []*provider // sorted by name
}

func (c *compiler) compile(r *discovery.JWTRequirement) (requirement, error) {
	return c.among(r, c.all)
}

// among compiles a requirement. beside are the providers that allow_missing is
// about.
func (c *compiler) among(r *discovery.JWTRequirement, beside []*provider) (requirement, error) {
	if r == nil {
		return nothing{}, nil
	}
	switch r.Kind {
	case discovery.JWTNothing:
		return nothing{}, nil
	case discovery.JWTProviderRequired:
		p := c.providers[r.Provider]
		if p == nil {
			return nil, fmt.Errorf("provider %q is not configured", r.Provider)
		}
		return &providerRequired{provider: p, audiences: r.Audiences}, nil
	case discovery.JWTAllowMissing:
		return &optional{providers: beside}, nil
	case discovery.JWTAllowMissingOrFailed:
		return &optional{providers: beside, failed: true}, nil
	case discovery.JWTAll:
		list, err := c.list(r.Of, c.all)
		return allOf(list), err
	case discovery.JWTAny:
		list, err := c.any(r.Of)
		return anyOf(list), err
	}
	return nil, fmt.Errorf("requirement of the unknown kind %d", r.Kind)
}

// any compiles a list of which one is enough. What allows requests without a
// token comes last, wherever it stands, so that a token is looked at before its
// absence is allowed.
func (c *compiler) any(list []*discovery.JWTRequirement) ([]requirement, error) {
	var beside []*provider
	var first, last []*discovery.JWTRequirement
	for _, r := range list {
		switch {
		case r.Kind == discovery.JWTAllowMissing, r.Kind == discovery.JWTAllowMissingOrFailed:
			last = append(last, r)
			continue
		case r.Kind == discovery.JWTProviderRequired && c.providers[r.Provider] != nil:
			beside = append(beside, c.providers[r.Provider])
		}
		first = append(first, r)
	}
	if beside == nil {
		beside = c.all
	}
	return c.list(append(first, last...), beside)
}

func (c *compiler) list(list []*discovery.JWTRequirement, beside []*provider) ([]requirement, error) {
	compiled := make([]requirement, len(list))
	for i, r := range list {
		var err error
		if compiled[i], err = c.among(r, beside); err != nil {
			return nil, err
		}
	}
	return compiled, nil
}

package jwt

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/token"
)

// provider is a configured provider with its keys.
type provider struct {
	name   string
	config *discovery.JWTProvider
	remote *remote // nil for keys of the configuration
	cache  *cache  // nil without one
}

// accepted is a token that was accepted, and by whom.
type accepted struct {
	provider *provider
	found    *found
	token    *token.Token
}

// verify tells whether the provider accepts a token. The error is that of ctx,
// if it ended while the keys were on their way.
func (p *provider) verify(ctx context.Context, raw string, audiences []string) (*token.Token, token.Status, error) {
	parsed, generation := p.cache.get(raw)
	cached := parsed != nil
	if !cached {
		var status token.Status
		if parsed, status = token.Parse(raw); status != token.OK {
			return nil, status, nil
		}
	}
	if status := p.check(parsed, audiences, time.Now()); status != token.OK {
		return nil, status, nil
	}
	if cached && p.current(generation) {
		return parsed, token.OK, nil
	}
	generation, status, err := p.verifySignature(ctx, parsed)
	if err != nil || status != token.OK {
		return nil, status, err
	}
	p.cache.put(raw, parsed, generation)
	return parsed, token.OK, nil
}

// check looks at everything but the signature. It comes before the signature,
// because it is cheap, and none of it is told to anybody but the caller whose
// token it is.
func (p *provider) check(t *token.Token, audiences []string, now time.Time) token.Status {
	c := p.config
	if c.Issuer != "" && t.Issuer != c.Issuer {
		return token.UnknownIssuer
	}
	if c.Subjects != nil && (t.Subject == "" || !c.Subjects.Matches(t.Subject)) {
		return token.SubjectForbidden
	}
	if status := t.Valid(now, c.ClockSkew); status != token.OK {
		return status
	}
	if t.Expiry.IsZero() && (c.RequireExpiration || c.MaxLifetime > 0) {
		return token.NoExpiry
	}
	if c.MaxLifetime > 0 && t.Expiry.Sub(now) > c.MaxLifetime+c.ClockSkew {
		return token.TooLong
	}
	if audiences == nil {
		audiences = c.Audiences
	}
	if len(audiences) > 0 && !slices.ContainsFunc(t.Audiences, func(a string) bool { return allowedAudience(audiences, a) }) {
		return token.AudienceForbidden
	}
	return token.OK
}

// allowedAudience compares as Envoy does: without regard to the scheme and to a
// slash at the end.
func allowedAudience(allowed []string, audience string) bool {
	plain := plainAudience(audience)
	return audience != "" && slices.ContainsFunc(allowed, func(a string) bool { return plainAudience(a) == plain })
}

func plainAudience(a string) string {
	if rest, ok := strings.CutPrefix(a, "https://"); ok {
		a = rest
	} else if rest, ok := strings.CutPrefix(a, "http://"); ok {
		a = rest
	}
	return strings.TrimSuffix(a, "/")
}

// current reports whether keys are still those by which a token was accepted.
func (p *provider) current(generation uint64) bool {
	return p.remote == nil || p.remote.current(generation)
}

func (p *provider) verifySignature(ctx context.Context, t *token.Token) (generation uint64, status token.Status, err error) {
	if p.remote == nil {
		return 0, t.Verify(p.config.Keys), nil
	}
	set, status, err := p.remote.get(ctx)
	if err != nil || status != token.OK {
		return 0, status, err
	}
	status = t.Verify(set.keys)
	if status == token.NoSuchKey {
		// The issuer may have changed its keys.
		newer, err := p.remote.newer(ctx, set.generation)
		if err != nil {
			return 0, status, err
		}
		if newer != nil {
			set = newer
			status = t.Verify(set.keys)
		}
	}
	return set.generation, status, nil
}

// sanitize removes the headers that the provider sets.
func (p *provider) sanitize(x *filter.Exchange) {
	if p.config.PayloadHeader != "" {
		x.Headers.Del(p.config.PayloadHeader)
	}
	for i := range p.config.ClaimHeaders {
		x.Headers.Del(p.config.ClaimHeaders[i].Header)
	}
}

// apply hands on what an accepted token says.
func (a *accepted) apply(x *filter.Exchange, values map[string]any) {
	c := a.provider.config
	if !c.Forward {
		a.found.remove(x)
	}
	changed := c.PayloadMetadata != ""
	if c.PayloadHeader != "" {
		payload := a.token.Payload
		if c.PadPayload {
			payload += strings.Repeat("=", (4-len(payload)%4)%4)
		}
		x.Headers.Add(c.PayloadHeader, payload)
	}
	for i := range c.ClaimHeaders {
		if value, ok := claimText(a.token.Claims, c.ClaimHeaders[i].Path); ok {
			x.Headers.Add(c.ClaimHeaders[i].Header, value)
			changed = true
		}
	}
	if c.HeaderMetadata != "" {
		values[c.HeaderMetadata] = a.token.Header
	}
	if c.PayloadMetadata != "" {
		values[c.PayloadMetadata] = a.normalized()
	}
	if c.ClearRoute && changed {
		x.ClearRoute()
	}
}

// normalized is the claims, those that are lists of words split into lists.
func (a *accepted) normalized() map[string]any {
	claims, copied := a.token.Claims, false
	for _, name := range a.provider.config.SpaceDelimited {
		text, ok := claims[name].(string)
		if !ok {
			continue
		}
		if !copied {
			// The token may be another request's too.
			claims, copied = maps.Clone(claims), true
		}
		words := strings.Fields(text)
		list := make([]any, len(words))
		for i, word := range words {
			list[i] = word
		}
		claims[name] = list
	}
	return claims
}

// claimText is a claim as the value of a header: texts, numbers and booleans as
// they are, objects and lists as JSON in base64 (Envoy, claim_to_headers).
func claimText(claims map[string]any, path []string) (string, bool) {
	var value any = claims
	for _, key := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return "", false
		}
		if value, ok = object[key]; !ok {
			return "", false
		}
	}
	switch v := value.(type) {
	case string:
		// What no header can hold is no header: it would end there.
		return v, v != "" && httpguts.ValidHeaderFieldValue(v)
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return strconv.FormatInt(int64(v), 10), true
		}
		return strconv.FormatFloat(v, 'f', 6, 64), true
	case map[string]any, []any:
		data, err := json.Marshal(v)
		if err != nil {
			return "", false
		}
		return base64.StdEncoding.EncodeToString(data), true
	}
	return "", false
}

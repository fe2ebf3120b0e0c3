// Package cors is the CORS filter: it answers what browsers ask before they call
// from another origin, and marks the responses that they may read.
package cors

import (
	"context"
	"net/http"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// New returns the filter of a policy.
func New(policy *discovery.CORS) filter.Filter { return &checker{policy} }

type checker struct{ policy *discovery.CORS }

// Request answers preflights, as Envoy's filter does: 200 with what is allowed. One
// of an origin that is not allowed goes on, unless the policy stops it; the
// application then says no in its own way. It refuses nothing else: what a browser
// may not read is for the browser to hide.
func (c *checker) Request(_ context.Context, x *filter.Exchange) (*filter.Answer, error) {
	origin := first(&x.Request, "origin")
	if origin == "" || !route.Draw(c.policy.PerMillion) {
		return nil, nil
	}
	allowed := c.allows(origin)
	if isPreflight(&x.Request) {
		if allowed || c.policy.StopUnmatched {
			return c.preflight(x, origin, allowed), nil
		}
		return nil, nil
	}
	if allowed {
		x.Respond(func(_ int, h route.HeaderMap) { c.mark(h, origin) })
	}
	return nil, nil
}

// isPreflight reports whether a request with an origin is a browser's question.
func isPreflight(req *route.Request) bool {
	return req.Method == http.MethodOptions && first(req, "access-control-request-method") != ""
}

// Answers says of how many of a million of such requests the filter of a policy
// answers itself: of preflights, and of those whom it does not leave to the
// application.
func Answers(policy *discovery.CORS, req *route.Request) uint32 {
	origin := first(req, "origin")
	if origin == "" || !isPreflight(req) || !policy.StopUnmatched && !(&checker{policy}).allows(origin) {
		return 0
	}
	return policy.PerMillion
}

func (c *checker) allows(origin string) bool {
	for i := range c.policy.AllowOrigins {
		if m := &c.policy.AllowOrigins[i]; m.Matches("*") || m.Matches(origin) {
			return true
		}
	}
	return false
}

func (c *checker) preflight(x *filter.Exchange, origin string, allowed bool) *filter.Answer {
	answer := &filter.Answer{Status: http.StatusOK, Reason: "cors preflight"}
	if !allowed {
		return answer
	}
	p := c.policy
	add := func(name, value string) {
		if value != "" {
			answer.Headers = append(answer.Headers, filter.Header{Name: name, Value: value})
		}
	}
	add("access-control-allow-origin", origin)
	add("access-control-allow-credentials", yes(p.AllowCredentials))
	add("access-control-allow-methods", p.AllowMethods)
	add("access-control-allow-headers", p.AllowHeaders)
	add("access-control-max-age", p.MaxAge)
	if first(&x.Request, "access-control-request-private-network") == "true" {
		add("access-control-allow-private-network", yes(p.AllowPrivateNetwork))
	}
	return answer
}

// mark changes the headers of a response that a browser may read.
func (c *checker) mark(h route.HeaderMap, origin string) {
	h.Set("access-control-allow-origin", origin)
	if c.policy.AllowCredentials {
		h.Set("access-control-allow-credentials", "true")
	}
	if c.policy.ExposeHeaders != "" {
		h.Set("access-control-expose-headers", c.policy.ExposeHeaders)
	}
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func first(req *route.Request, name string) string {
	if req.Header == nil {
		return ""
	}
	if values := req.Header.Values(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

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

var _ filter.Idler = (*checker)(nil)

// Idle reports whether no origin is allowed, and none is stopped: the filter is there
// for routes with policies of their own.
func (c *checker) Idle() bool {
	return c.policy.PerMillion == 0 || len(c.policy.AllowOrigins) == 0 && !c.policy.StopUnmatched
}

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
			return c.preflight(&x.Request, origin, allowed), nil
		}
		return nil, nil
	}
	if allowed {
		x.Respond(func(_ int, h route.HeaderMap) {
			for _, mark := range c.marks(origin) {
				h.Set(mark.Name, mark.Value)
			}
		})
	}
	return nil, nil
}

// isPreflight reports whether a request with an origin is a browser's question.
func isPreflight(req *route.Request) bool {
	return req.Method == http.MethodOptions && first(req, "access-control-request-method") != ""
}

// Answer is what the filter of a policy answers a request itself: a preflight that it
// does not leave to the application. perMillion says of how many of such requests.
func Answer(policy *discovery.CORS, req *route.Request) (answer *filter.Answer, perMillion uint32) {
	c, origin := &checker{policy}, first(req, "origin")
	allowed := c.allows(origin)
	if origin == "" || !isPreflight(req) || !policy.StopUnmatched && !allowed {
		return nil, 0
	}
	return c.preflight(req, origin, allowed), policy.PerMillion
}

// Marks are the headers that the filter of a policy gives to the response to a request
// that is no preflight.
func Marks(policy *discovery.CORS, req *route.Request) []filter.Header {
	c, origin := &checker{policy}, first(req, "origin")
	if origin == "" || !c.allows(origin) {
		return nil
	}
	return c.marks(origin)
}

func (c *checker) allows(origin string) bool {
	for i := range c.policy.AllowOrigins {
		if m := &c.policy.AllowOrigins[i]; m.Matches("*") || m.Matches(origin) {
			return true
		}
	}
	return false
}

func (c *checker) preflight(req *route.Request, origin string, allowed bool) *filter.Answer {
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
	if first(req, "access-control-request-private-network") == "true" {
		add("access-control-allow-private-network", yes(p.AllowPrivateNetwork))
	}
	return answer
}

// marks are the headers of a response that a browser may read.
func (c *checker) marks(origin string) []filter.Header {
	marks := []filter.Header{{Name: "access-control-allow-origin", Value: origin}}
	if c.policy.AllowCredentials {
		marks = append(marks, filter.Header{Name: "access-control-allow-credentials", Value: "true"})
	}
	if c.policy.ExposeHeaders != "" {
		marks = append(marks, filter.Header{Name: "access-control-expose-headers", Value: c.policy.ExposeHeaders})
	}
	return marks
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

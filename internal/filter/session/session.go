// Package session keeps callers with one endpoint (Envoy's stateful session
// filter; gRFC A55 and A60). The caller brings the address of its endpoint, in a
// cookie or in a header, and gets a new one with a response from another endpoint.
//
// The address is not trusted: it only chooses among the endpoints of the cluster
// that the route leads to.
package session

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// maxState bounds what is decoded of a caller's word: an address and the name of a
// cluster.
const maxState = 1024

type session struct{ config *discovery.StatefulSession }

// New returns the filter of a listener, or of a route.
func New(config *discovery.StatefulSession) filter.Filter { return &session{config: config} }

var _ filter.Filter = (*session)(nil)

// Request pins the request to the endpoint that the caller names, and gives the
// caller the address of the one that answers, if it is another.
func (s *session) Request(_ context.Context, x *filter.Exchange) (*filter.Answer, error) {
	if !s.applies(x.Path) {
		return nil, nil
	}
	state := ""
	if text, ok := s.text(&x.Request); ok {
		state = decode(text)
	}
	address, cluster, named := strings.Cut(state, ";")
	if address != "" {
		x.Pin = filter.Pin{Address: address, Strict: s.config.Strict, Missing: s.config.StatusMissing}
		if named {
			x.Pin.Address = s.follow(x, address, cluster)
		}
	}
	x.Respond(func(_ int, h route.HeaderMap) {
		if x.Upstream == "" {
			return // no endpoint has answered
		}
		if now := s.state(x); now != state {
			s.tell(h, now)
		}
	})
	return nil, nil
}

// applies reports whether the path is one of the cookie's, by RFC 6265, 5.1.4.
func (s *session) applies(path string) bool {
	switch {
	case s.config.Header != "":
		return true
	case s.config.Cookie == "":
		return false
	}
	p := s.config.NewCookie.Path
	rest, ok := strings.CutPrefix(path, p)
	return ok && (p == "" || rest == "" || p[len(p)-1] == '/' || rest[0] == '/')
}

// text is what the caller has brought.
func (s *session) text(req *route.Request) (string, bool) {
	if s.config.Cookie != "" {
		return req.Cookie(s.config.Cookie)
	}
	if req.Header == nil {
		return "", false
	}
	values := req.Header.Values(s.config.Header)
	if len(values) == 0 {
		return "", false
	}
	return values[0], true
}

// decode returns the state in a text, "" if it is none.
func decode(text string) string {
	if len(text) > maxState {
		return ""
	}
	state, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return string(state)
}

// follow takes the request to the cluster of its session, if that is one of the
// route's. Otherwise the address is no one's: it must not be looked for in another
// cluster.
func (s *session) follow(x *filter.Exchange, address, cluster string) string {
	r := x.Decision.Route
	if r == nil || r.Forward == nil {
		return address
	}
	for i := range r.Forward.Clusters {
		if c := &r.Forward.Clusters[i]; c.Name == cluster && c.Weight > 0 {
			x.Decision.Cluster = c
			return address
		}
	}
	return Elsewhere
}

// Elsewhere is the address of no endpoint, for a session with a cluster that the route
// does not lead to.
const Elsewhere = ";"

// state is what the caller is to bring: the address, with the others of the endpoint
// so that it is found by each of them (gRFC A61), and the cluster if the route has
// more than one.
func (s *session) state(x *filter.Exchange) string {
	addresses := x.Upstream
	if len(x.Further) > 0 {
		addresses += "," + strings.Join(x.Further, ",")
	}
	r := x.Decision.Route
	if r == nil || r.Forward == nil || len(r.Forward.Clusters) < 2 || x.Decision.Cluster == nil {
		return addresses
	}
	return addresses + ";" + x.Decision.Cluster.Name
}

func (s *session) tell(h route.HeaderMap, state string) {
	value := base64.StdEncoding.EncodeToString([]byte(state))
	if s.config.Cookie != "" {
		h.Add("set-cookie", route.SetCookie(s.config.Cookie, value, s.config.NewCookie))
		return
	}
	h.Set(s.config.Header, value)
}

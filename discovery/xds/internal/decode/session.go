package decode

import (
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

var sessionFields = []messageFields{
	{
		message: (*sessionv3.StatefulSession)(nil),
		read:    "session_state strict status_on_strict_destination_not_found",
		// Metrics.
		harmless: "stat_prefix",
	},
	{message: (*sessionv3.StatefulSessionPerRoute)(nil), read: "disabled stateful_session"},
	{message: (*cookiev3.CookieBasedSessionState)(nil), read: "cookie"},
	{message: (*headerv3.HeaderBasedSessionState)(nil), read: "name"},
	{message: (*httpv3.Cookie)(nil), read: "name ttl path attributes"},
	{message: (*httpv3.CookieAttribute)(nil), read: "name value"},
	{message: (*corev3.HealthStatusSet)(nil), read: "statuses"},
}

// isSession tells whether a holds the configuration of the stateful session filter,
// of a listener or of a route.
func isSession(a *anypb.Any) bool {
	return is(a, (*sessionv3.StatefulSession)(nil)) || is(a, (*sessionv3.StatefulSessionPerRoute)(nil))
}

// sessionOff tells whether a route switches the filter off.
func sessionOff(a *anypb.Any) bool {
	m := &sessionv3.StatefulSessionPerRoute{}
	return is(a, m) && a.UnmarshalTo(m) == nil && m.GetDisabled()
}

// session decodes the configuration of the stateful session filter.
func (d *decoder) session(at path, a *anypb.Any) discovery.FilterConfig {
	m := &sessionv3.StatefulSession{}
	if route := (&sessionv3.StatefulSessionPerRoute{}); is(a, route) {
		if !d.unpack(at, a, route) {
			return nil
		}
		m, at = route.GetStatefulSession(), at.field("stateful_session")
	} else if !d.unpack(at, a, m) {
		return nil
	}
	s := &discovery.StatefulSession{Strict: m.GetStrict(), StatusMissing: http.StatusServiceUnavailable}
	if status := m.GetStatusOnStrictDestinationNotFound(); status != 0 {
		if s.StatusMissing = int(status); status < 200 || status > 599 {
			d.refusef(at.field("status_on_strict_destination_not_found"), "%d is not the status of a response", status)
		}
	}
	if m.GetSessionState() == nil {
		return s // only routes have sessions
	}
	in, state := at.field("session_state").field("typed_config"), m.GetSessionState().GetTypedConfig()
	switch {
	case is(state, (*cookiev3.CookieBasedSessionState)(nil)):
		c := &cookiev3.CookieBasedSessionState{}
		if d.unpack(in, state, c) {
			s.Cookie, s.NewCookie = d.sessionCookie(in.field("cookie"), c.GetCookie())
		}
	case is(state, (*headerv3.HeaderBasedSessionState)(nil)):
		h := &headerv3.HeaderBasedSessionState{}
		if d.unpack(in, state, h) {
			s.Header = strings.ToLower(h.GetName())
			if !httpguts.ValidHeaderFieldName(s.Header) {
				d.refusef(in.field("name"), "%q is not the name of a header", h.GetName())
			}
		}
	default:
		d.refusef(in, "session state %q is not supported: use a cookie or a header", typeName(state))
	}
	return s
}

// sessionCookie decodes the cookie that holds a session.
func (d *decoder) sessionCookie(at path, m *httpv3.Cookie) (string, *discovery.NewCookie) {
	c := &discovery.NewCookie{TTL: d.duration(at.field("ttl"), m.GetTtl()), Path: m.GetPath()}
	if !httpguts.ValidHeaderFieldName(m.GetName()) { // both are tokens
		d.refusef(at.field("name"), "%q is not the name of a cookie", m.GetName())
	}
	d.cookieText(at.field("path"), m.GetPath())
	for i, a := range m.GetAttributes() {
		in := at.element("attributes", i)
		d.cookieText(in.field("name"), a.GetName())
		d.cookieText(in.field("value"), a.GetValue())
		c.Attributes = append(c.Attributes, discovery.CookieAttribute{Name: a.GetName(), Value: a.GetValue()})
	}
	return m.GetName(), c
}

// pinnable decodes override_host_status.
func pinnable(m *corev3.HealthStatusSet) balancer.HealthSet {
	if m == nil {
		return 0
	}
	states := make([]balancer.Health, 0, len(m.GetStatuses()))
	for _, s := range m.GetStatuses() {
		states = append(states, healthStatus(s))
	}
	return balancer.NewHealthSet(states...)
}

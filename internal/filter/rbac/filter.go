package rbac

import (
	"context"
	"net/http"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/observe"
)

// The namespace and the keys under which later filters find what was decided, as
// in Envoy.
const (
	namespace    = "envoy.filters.http.rbac"
	shadowPolicy = "shadow_effective_policy_id"
	shadowResult = "shadow_engine_result"
	logNamespace = "envoy.common"
	logHint      = "access_log_hint"
)

// Filter is the RBAC filter.
type Filter struct {
	config         *discovery.RBAC
	rules, shadow  *engine
	report         func(observe.AuthorizationEvent)
	shadowMetadata [2]string // the keys, with the prefix
	// asks tells that the shadow rules are no trial, see NewCondition.
	asks bool
}

var _ filter.Guard = (*Filter)(nil)

// New compiles a filter. hooks may report nothing.
func New(config *discovery.RBAC, hooks *observe.Hooks) *Filter {
	f := &Filter{
		config: config, rules: newEngine(config.Rules), shadow: newEngine(config.Shadow),
		shadowMetadata: [2]string{config.ShadowPrefix + shadowPolicy, config.ShadowPrefix + shadowResult},
	}
	if hooks != nil {
		f.report = hooks.Authorized
	}
	return f
}

// NewCondition compiles a filter whose shadow rules are not on trial: they say about
// which requests a later filter asks a service, as the CUSTOM policies of Istio have
// it. Their matches are reported as such.
func NewCondition(config *discovery.RBAC, hooks *observe.Hooks) *Filter {
	f := New(config, hooks)
	f.asks = true
	return f
}

// Decides reports whether a matcher looks at what the shadow rules of a configuration
// have decided.
func Decides(config *discovery.RBAC, m *discovery.MetadataMatch) bool {
	return config.Shadow != nil && m.Filter == namespace && len(m.Path) == 1 &&
		(m.Path[0] == config.ShadowPrefix+shadowPolicy || m.Path[0] == config.ShadowPrefix+shadowResult)
}

// Guards reports that requests that can be read in two ways must not reach the
// filter.
func (f *Filter) Guards() bool { return f.rules != nil }

// Request decides about a request.
func (f *Filter) Request(_ context.Context, x *filter.Exchange) (*filter.Answer, error) {
	s := Subject{
		Request: &x.Request, Certificate: x.Certificate(), Remote: x.Facts.Remote, Peer: x.Facts.Peer, Local: x.Facts.Local,
		Protocol: x.Facts.Protocol, Start: x.Facts.Start,
	}
	if x.TLS != nil {
		s.ServerName, s.TLSVersion = x.TLS.ServerName, x.TLS.Version
	}
	event := observe.AuthorizationEvent{
		Listener: x.Listener, Method: x.Method, Path: x.Path, PeerID: x.Facts.PeerID, PeerAddress: x.Facts.Peer,
	}
	f.try(&s, &event, x)
	if f.enforce(&s, &event, x) {
		return nil, nil
	}
	// Which policy it was is for the log.
	const denied = "RBAC: access denied"
	return &filter.Answer{Status: http.StatusForbidden, Body: []byte(denied), Reason: denied}, nil
}

// Connection decides about a connection, when it was accepted. s.Request is nil.
func (f *Filter) Connection(s *Subject, listener, peerID string) bool {
	event := observe.AuthorizationEvent{Listener: listener, PeerID: peerID, PeerAddress: s.Peer}
	f.try(s, &event, nil)
	return f.enforce(s, &event, nil)
}

// Still decides about a connection again, for the policy may have changed since:
// only a denial is reported.
func (f *Filter) Still(s *Subject, listener, peerID string) bool {
	if f.rules == nil || f.rules.onlyLogs {
		return true
	}
	return f.enforce(s, &observe.AuthorizationEvent{Listener: listener, PeerID: peerID, PeerAddress: s.Peer}, nil)
}

// try evaluates the shadow rules, and reports what they would decide.
func (f *Filter) try(s *Subject, event *observe.AuthorizationEvent, x *filter.Exchange) {
	if f.shadow == nil {
		return
	}
	d := f.shadow.decide(s)
	if x != nil {
		values := map[string]any{f.shadowMetadata[1]: "denied"}
		if d.allowed {
			values[f.shadowMetadata[1]] = "allowed"
		}
		if d.matched {
			values[f.shadowMetadata[0]] = d.policy
		}
		x.SetMetadata(namespace, values)
	}
	switch {
	case f.report == nil:
	case f.asks:
		if d.matched {
			e := *event
			e.Prefix, e.Policy, e.Allowed, e.Asked = f.config.ShadowPrefix, d.policy, true, true
			f.report(e)
		}
	default:
		e := *event
		e.Prefix, e.Policy, e.Allowed, e.Shadow = f.config.ShadowPrefix, d.policy, d.allowed, true
		e.Logged = d.logged
		f.report(e)
	}
}

// enforce evaluates the rules.
func (f *Filter) enforce(s *Subject, event *observe.AuthorizationEvent, x *filter.Exchange) bool {
	if f.rules == nil {
		return true
	}
	d := f.rules.decide(s)
	if f.rules.logs && x != nil {
		x.SetMetadata(logNamespace, map[string]any{logHint: d.logged})
	}
	if f.report != nil && (!d.allowed || d.logged) {
		e := *event
		e.Prefix, e.Policy, e.Allowed, e.Logged = f.config.StatPrefix, d.policy, d.allowed, d.logged
		f.report(e)
	}
	return d.allowed
}

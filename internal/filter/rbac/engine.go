// Package rbac decides who may do what: Envoy's RBAC, over requests of HTTP and
// gRPC and over connections.
//
// A request can sometimes be read in two ways: a header that is there twice is
// one list for some and the first value for others. Such a rule is evaluated for
// the certain and for the possible (see [engine]): what denies needs one reading
// that matches, what allows needs all. Spellings of the same path or host, which
// are the same to every application, are no different readings: a rule about one
// is about all of them.
package rbac

import (
	"crypto/x509"
	"net"
	"net/netip"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/condition"
	"github.com/inboardmesh/inboard/internal/route"
)

// Subject is what is decided about: a request, or a connection if Request is
// nil. It is used by one goroutine.
type Subject struct {
	Request *route.Request
	// Certificate is the peer's, verified; nil without one.
	Certificate *x509.Certificate
	// ServerName is what the client asked for in its TLS hello.
	ServerName string
	// TLSVersion is 0 for plaintext.
	TLSVersion uint16
	// Protocol and Start are of the request.
	Protocol string
	Start    time.Time
	// Remote is the client's address, which a trusted proxy may have told; it may
	// be without a port. Peer and Local are the addresses of the connection.
	Remote, Peer string
	Local        net.Addr

	readings            readings
	remote, peer, local addressOf
	facts               *condition.Facts
}

// addressOf is an address that was read, if it could be.
type addressOf struct {
	read bool
	ip   netip.AddrPort
}

func (a *addressOf) get(text string) netip.AddrPort {
	if a.read {
		return a.ip
	}
	a.read = true
	ip, err := netip.ParseAddrPort(text)
	if err != nil {
		alone, err := netip.ParseAddr(text)
		if err != nil {
			return a.ip
		}
		ip = netip.AddrPortFrom(alone, 0)
	}
	a.ip = netip.AddrPortFrom(ip.Addr().Unmap().WithZone(""), ip.Port())
	return a.ip
}

func (s *Subject) remoteIP() netip.Addr { return s.remote.get(s.Remote).Addr() }

func (s *Subject) peerIP() netip.Addr { return s.peer.get(s.Peer).Addr() }

func (s *Subject) localAddress() netip.AddrPort {
	if tcp, ok := s.Local.(*net.TCPAddr); ok {
		a := tcp.AddrPort()
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	if s.Local == nil {
		return netip.AddrPort{}
	}
	return s.local.get(s.Local.String())
}

// engine is rules, compiled.
type engine struct {
	action   discovery.RBACAction
	policies []policy
	tree     *tree // in place of both; nil for none
	// logs tells that a match may be one that is only reported, onlyLogs that all are.
	logs, onlyLogs bool
}

// decision is what rules say of a subject.
type decision struct {
	allowed bool
	// matched tells that a policy did, and policy which; logged that it is to be
	// reported and no more.
	matched, logged bool
	policy          string
}

type policy struct {
	name                    string
	permissions, principals []matcher
	condition               *condition.Condition // nil for none
}

// matcher is one rule. With certain it reports whether the rule matches under
// every reading of the subject, without it whether it matches under any.
type matcher interface {
	match(s *Subject, certain bool) bool
}

func newEngine(rules *discovery.RBACRules) *engine {
	if rules == nil {
		return nil
	}
	if rules.Tree != nil {
		t := compileTree(rules.Tree)
		return &engine{tree: t, logs: t.logs()}
	}
	logs := rules.Action == discovery.RBACLog
	e := &engine{action: rules.Action, policies: make([]policy, len(rules.Policies)), logs: logs, onlyLogs: logs}
	for i := range rules.Policies {
		p := &rules.Policies[i]
		e.policies[i] = policy{name: p.Name, permissions: compileAll(p.Permissions), principals: compileAll(p.Principals), condition: p.Condition}
	}
	return e
}

// decide evaluates the rules.
func (e *engine) decide(s *Subject) decision {
	if e.tree != nil {
		return e.tree.decide(s)
	}
	var d decision
	certain := e.action == discovery.RBACAllow
	for i := range e.policies {
		p := &e.policies[i]
		if anyOf(p.permissions, s, certain) && anyOf(p.principals, s, certain) && (p.condition == nil || p.condition.Holds(s.asked(), certain)) {
			d.policy, d.matched = p.name, true
			break
		}
	}
	switch e.action {
	case discovery.RBACAllow:
		d.allowed = d.matched
	case discovery.RBACDeny:
		d.allowed = !d.matched
	default:
		d.allowed, d.logged = true, d.matched
	}
	return d
}

func anyOf(list []matcher, s *Subject, certain bool) bool {
	for _, m := range list {
		if m.match(s, certain) {
			return true
		}
	}
	return false
}

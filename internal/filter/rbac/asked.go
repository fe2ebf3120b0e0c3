package rbac

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/internal/condition"
)

// asked are the facts that a condition may ask about, made when the first one
// does. Where rules take two spellings for the same, a condition is asked about
// each: nobody knows what a match means to it.
func (s *Subject) asked() *condition.Facts {
	if s.facts != nil {
		return s.facts
	}
	s.facts = &condition.Facts{
		Source: s.source(), Destination: s.localAddress(), Certificate: s.Certificate, ServerName: s.ServerName, TLSVersion: s.TLSVersion,
	}
	if s.Request == nil {
		return s.facts
	}
	paths := []string{s.read().path}
	if decoded := s.readings.decoded; decoded != paths[0] {
		paths = append(paths, decoded)
	}
	spellings, n := hostSpellings(s.Request.Host)
	hosts := slices.Clone(spellings[:n])
	for _, host := range spellings[:n] {
		if lower := strings.ToLower(host); !slices.Contains(hosts, lower) {
			hosts = append(hosts, lower)
		}
	}
	header := func(string) []string { return nil }
	if s.Request.Header != nil {
		header = s.Request.Header.Values
	}
	s.facts.Request = &condition.Request{
		Method: s.Request.Method, Scheme: s.Request.Scheme, Protocol: s.Protocol, Query: s.Request.Query,
		Paths: paths, Hosts: hosts, Start: s.Start, Header: header, Metadata: s.Request.Metadata,
	}
	return s.facts
}

// source is the client's address. Its port is known if no proxy stands between,
// else it is 0, as in Envoy.
func (s *Subject) source() netip.AddrPort {
	remote := s.remote.get(s.Remote)
	if peer := s.peer.get(s.Peer); remote.Port() == 0 && peer.Addr() == remote.Addr() {
		return peer
	}
	return remote
}

package inbound

import (
	"fmt"
	"net"

	"github.com/inboardmesh/inboard/discovery"
)

const (
	// fieldOverhead is what HTTP/2 counts for a header field beside its name and value
	// (RFC 9113, section 6.5.2).
	fieldOverhead = 32
	// ownFields is room for the pseudo-headers, which the limit of a chain does not count.
	ownFields = 512
	// usualFields, which stand for a number that is not limited, and usualBytes are Envoy's
	// defaults.
	usualFields = 100
	usualBytes  = 60 << 10
)

// HeaderBytes is how much a server has to read, as HTTP/2 counts it, so that each chain
// of the listener applies its own limit to the headers of a request. It is 0 if ln is
// none of the mesh's, and while it has no configuration.
func (l *Listeners) HeaderBytes(ln net.Listener) int {
	if ln, ok := ln.(*Listener); ok && ln.owner == l {
		return ln.state.Load().headerBytes()
	}
	return 0
}

// MaxHeaderBytes is the largest [Listeners.HeaderBytes] of those that are open.
func (l *Listeners) MaxHeaderBytes() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	largest := 0
	for ln := range l.open {
		largest = max(largest, ln.state.Load().headerBytes())
	}
	return largest
}

// ReadBy tells how much headers the server that serves a listener of the mesh reads. If
// that is less than a chain allows, now or later, it is said once per configuration.
func (l *Listeners) ReadBy(ln net.Listener, limit int) {
	if ln, ok := ln.(*Listener); ok && ln.owner == l {
		ln.ReadBy(limit)
	}
}

// ReadBy is [Listeners.ReadBy] for one of them.
func (ln *Listener) ReadBy(limit int) {
	if ln.headerLimit.Swap(int64(limit)) != int64(limit) {
		ln.checkHeaders(ln.state.Load())
	}
}

func (ln *Listener) checkHeaders(s *state) {
	limit, wanted := int(ln.headerLimit.Load()), s.headerBytes()
	// Whoever has chosen less than the default of a configuration knows it.
	if limit > 0 && wanted > max(limit, usualBytes+fieldOverhead*usualFields+ownFields) && ln.owner.options.Warn != nil {
		ln.owner.options.Warn(ln.name, fmt.Sprintf("max_request_headers_kb has no effect above what the server reads, %d bytes: "+
			"start the server when the listener has its configuration, or set MaxHeaderBytes of http.Server, or grpc.MaxHeaderListSize, to %d", limit, wanted))
	}
}

func (s *state) headerBytes() int {
	largest := 0
	with := func(limits discovery.HeaderLimits) {
		if limits.Bytes > 0 {
			count := int(limits.Count)
			if count == 0 {
				count = usualFields
			}
			largest = max(largest, int(limits.Bytes)+fieldOverhead*count+ownFields)
		}
	}
	for _, chain := range s.tls {
		with(chain.Config.Headers)
	}
	if s.plaintext != nil {
		with(s.plaintext.Config.Headers)
	}
	return largest
}

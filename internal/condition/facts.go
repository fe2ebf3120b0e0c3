package condition

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"time"
)

// Facts are what an expression may ask about. They do not change while it is
// evaluated.
type Facts struct {
	// Request is nil where there is only a connection.
	Request *Request
	// Source is the client's address, and Destination the one that it came to.
	Source, Destination netip.AddrPort
	// Certificate is the peer's, verified; nil without one.
	Certificate *x509.Certificate
	// ServerName is what the client asked for in its TLS hello.
	ServerName string
	// TLSVersion is 0 for plaintext.
	TLSVersion uint16
}

// Request are the facts of a request.
type Request struct {
	Method, Scheme, Protocol, Query string
	// Paths and Hosts are the ways to write them. Paths are without the query.
	Paths, Hosts []string
	// Start is when the request came; zero if nobody knows.
	Start time.Time
	// Header returns the values of a header by its name in lower case.
	Header func(name string) []string
	// Metadata is that of the filters before, as encoding/json has its values.
	Metadata map[string]map[string]any
}

// targets are the paths with the query.
func (r *Request) targets() []string {
	if r.Query == "" {
		return r.Paths
	}
	targets := make([]string, len(r.Paths))
	for i, path := range r.Paths {
		targets[i] = path + "?" + r.Query
	}
	return targets
}

// tlsVersion is the name of a version as Envoy writes it; "" if there is none.
func tlsVersion(version uint16) string {
	switch version {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return ""
}

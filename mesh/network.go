package mesh

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Network is an [Option]: how the mesh reaches others. The zero value of a field
// leaves what another Network among the options says, or the default. The functions
// are called on several goroutines at a time.
//
//	m, err := mesh.New(ctx, mesh.Network{Dial: tunnel.DialContext})
type Network struct {
	// Dial opens the connections to endpoints, for HTTP and gRPC. network is
	// "tcp". The default is a [net.Dialer] with TCP keep-alive. What a connection has
	// read and not given yet, as a [crypto/tls.Conn] does, a Read must give although its
	// deadline has passed: before each further HTTP/1.1 request the mesh reads so, to
	// see that nothing is there that would be taken for the answer. One that returns
	// an error from SetReadDeadline carries one request.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup finds the addresses of host names, for endpoints that the control
	// plane tells the names of (STRICT_DNS and LOGICAL_DNS clusters, ServiceEntries
	// of resolution DNS). network is "ip", "ip4" or "ip6". It is called on
	// goroutines of the mesh, each with a context of 10 s. The default is
	// [net.Resolver.LookupNetIP] of [net.DefaultResolver].
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Transport is the template of HTTP connections: buffer sizes, compression,
	// header limits. It is cloned. TLS, proxies, dialing and the protocol version
	// are the mesh's, except for requests that go round it, for which the clone is
	// used as it is. The default is a clone of [http.DefaultTransport].
	Transport *http.Transport
}

var _ Option = Network{}

func (n Network) apply(s *settings) {
	if n.Dial != nil {
		s.network.Dial = n.Dial
	}
	if n.Lookup != nil {
		s.network.Lookup = n.Lookup
	}
	if n.Transport != nil {
		s.network.Transport = n.Transport
	}
}

// withDefaults fills in what nobody said. The default of Lookup is the resolver's own.
func (n Network) withDefaults() Network {
	if n.Dial == nil {
		n.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if n.Transport == nil {
		n.Transport = defaultTransport()
	}
	return n
}

// defaultTransport is net/http's own, unless the application put something else
// in its place.
func defaultTransport() *http.Transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok { //nolint:forbidigo // only cloned: its settings are what users expect
		return t.Clone()
	}
	return &http.Transport{}
}

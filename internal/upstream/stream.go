package upstream

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// Stream is a connection to an endpoint for a protocol of the application's own. It is
// not in the endpoint's pools, and counts as one call that is under way.
type Stream struct {
	net.Conn

	endpoint *Endpoint
	dialed   *dialed
	opened   time.Time
}

// Connect makes a connection, within the cluster's connect timeout, and reports it.
// On failure it has told the balancer.
func (e *Endpoint) Connect(ctx context.Context) (*Stream, error) {
	state := e.cluster.state.Load()
	if state.err != nil {
		return nil, state.err
	}
	bounded, cancel := context.WithTimeout(ctx, connectTimeout(state.config))
	defer cancel()
	begin := time.Now()
	d := &dialed{}
	conn, err := e.connect(bounded, d, state, e.address, streamALPN)
	now := time.Now()
	event := observe.ConnEvent{
		Cluster: e.cluster.name, Endpoint: e.address, Protocol: "tcp", TLS: d.secured != nil, PeerID: d.peerID, Err: err, Duration: now.Sub(begin),
	}
	if hook := e.cluster.manager.options.Hooks.ConnOpened; hook != nil {
		hook(event)
	}
	if err != nil {
		if ctx.Err() == nil { // that the caller went away is no failure of the endpoint's
			e.ConnectFailed(err)
		}
		return nil, err
	}
	e.Connected()
	return &Stream{Conn: conn, endpoint: e, dialed: d, opened: now}, nil
}

// streamALPN are the protocols to offer for bytes of which nobody knows more: Istio's
// proxies know each other by theirs.
func streamALPN(settings *discovery.UpstreamTLS) []string {
	if slices.ContainsFunc(settings.ALPN, isIstio) {
		return []string{"istio"}
	}
	return settings.ALPN
}

// Limits are how long the connection may be idle and how old it may become, as its
// cluster has it now. 0 is no limit.
func (s *Stream) Limits() (idle, age time.Duration) {
	if config := s.endpoint.cluster.Config(); config != nil {
		return config.IdleTimeout, config.MaxConnectionDuration
	}
	return 0, 0
}

// Opened is when the connection was made.
func (s *Stream) Opened() time.Time { return s.opened }

// Closed reports the end of the connection. It is called once.
func (s *Stream) Closed() {
	if hook := s.endpoint.cluster.manager.options.Hooks.ConnClosed; hook != nil {
		hook(observe.ConnEvent{
			Cluster: s.endpoint.cluster.name, Endpoint: s.endpoint.address, Protocol: "tcp",
			TLS: s.dialed.secured != nil, PeerID: s.dialed.peerID, Duration: time.Since(s.opened),
		})
	}
}

// errInTheClear is a connection without TLS to an endpoint that is to be reached with it.
var errInTheClear = errors.New("the endpoint is to be reached with TLS now")

var errExpired = errors.New("the certificate of the peer has expired")

// Check reports why the connection would not be made any more: its peer is not trusted,
// or that one's certificate has expired, or it is in the clear and is not to be. A
// change that it would survive is none, nor is one of an endpoint that has left. That
// the own certificate has expired is for the peer to say.
func (s *Stream) Check() error { return s.dialed.check(s.endpoint) }

// check is [Stream.Check] for any connection that carries no calls.
func (d *dialed) check(e *Endpoint) error {
	state := e.cluster.state.Load()
	if state.err != nil {
		return nil //nolint:nilerr // why there is no cluster is no reason to end what it made
	}
	secure := state.tlsOf(e)
	switch {
	case secure == nil:
		return nil
	case d.secured == nil:
		return errInTheClear
	}
	if security := secure.security(); d.security.Same(security) && (d.expires.IsZero() || time.Now().Before(d.expires)) {
		return nil
	}
	connection := d.secured.ConnectionState()
	if certs := connection.PeerCertificates; len(certs) > 0 && time.Now().After(certs[0].NotAfter) {
		return errExpired
	}
	if _, err := secure.roots.Identity(); err != nil {
		return nil //nolint:nilerr // a source that has nothing at the moment has withdrawn nothing
	}
	config, err := secure.config(nil)
	if err != nil {
		return err
	}
	return config.VerifyConnection(connection)
}

package controlplane

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/controlplane/ca"
)

// serverNames are in every certificate of the secure listener: the ways to
// reach it on the same host, and the name that Istio's workloads expect.
var serverNames = [...]string{"localhost", "127.0.0.1", "::1", "istiod.istio-system.svc"}

// certificate is the secure listener's own, renewed when it is asked for and
// two thirds of its life are over.
type certificate struct {
	ca    *ca.CA
	names []string

	mu   sync.Mutex
	cert *tls.Certificate // guarded by mu
}

func newCertificate(authority *ca.CA, names []string) *certificate {
	all := append(slices.Clone(serverNames[:]), names...)
	slices.Sort(all)
	return &certificate{ca: authority, names: slices.Compact(all)}
}

func (c *certificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cert != nil {
		leaf := c.cert.Leaf
		renewal := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
		if time.Now().Before(renewal) {
			return c.cert, nil
		}
	}
	cert, err := c.ca.ServerCertificate(c.names, 0)
	if err != nil {
		return nil, fmt.Errorf("certificate of the secure listener: %w", err)
	}
	c.cert = cert
	return cert, nil
}

// secureCredentials make a new TLS configuration for each connection, so that
// each sees the roots and the certificate of its time, and no session is
// resumed that an older trust bundle allowed.
func (s *Server) secureCredentials() credentials.TransportCredentials {
	return &expiring{logger: s.logger, TransportCredentials: credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, err := s.certificate.current()
			if err != nil {
				return nil, err
			}
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				Certificates:           []tls.Certificate{*cert},
				ClientAuth:             tls.VerifyClientCertIfGiven,
				ClientCAs:              s.ca.Roots(),
				NextProtos:             []string{"h2"},
				SessionTicketsDisabled: true,
			}, nil
		},
	})}
}

// expiring are server credentials whose connections end when the client's
// certificate does. TLS looks at it once; a stream can last for months. The
// client connects again with the certificate that it has by then.
type expiring struct {
	credentials.TransportCredentials
	logger *slog.Logger
}

// Clone implements [credentials.TransportCredentials].
func (e *expiring) Clone() credentials.TransportCredentials {
	return &expiring{logger: e.logger, TransportCredentials: e.TransportCredentials.Clone()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (e *expiring) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		// gRPC drops the error. Whoever connects and says nothing, as a TCP
		// health check does, is not worth a line.
		if !errors.Is(err, io.EOF) {
			e.logger.Warn("connection refused", "peer", raw.RemoteAddr().String(), "error", err)
		}
		return nil, nil, err
	}
	if state, ok := info.(credentials.TLSInfo); ok && len(state.State.PeerCertificates) > 0 {
		conn = newExpiringConn(conn, state.State.PeerCertificates[0].NotAfter)
	}
	return conn, info, nil
}

// expiringConn closes itself at a given time.
type expiringConn struct {
	net.Conn
	timer *time.Timer
}

func newExpiringConn(conn net.Conn, at time.Time) *expiringConn {
	return &expiringConn{Conn: conn, timer: time.AfterFunc(time.Until(at), func() {
		_ = conn.Close() // the reader sees that it is closed
	})}
}

// Close implements [net.Conn].
func (c *expiringConn) Close() error {
	c.timer.Stop()
	return c.Conn.Close()
}

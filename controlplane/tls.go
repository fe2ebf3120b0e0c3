package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

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
	return &expiring{logger: s.logger, paced: &s.unsecured, TransportCredentials: credentials.NewTLS(&tls.Config{
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

// expiryGrace is for how long a connection outlives what its client proved, so
// that the streams on it can end with the reason.
const expiryGrace = time.Second

// expiring are server credentials whose connections end when nothing that the
// client proved on them holds any more: its certificate, at which TLS looks
// once, and the tokens of its streams. The client connects again with the
// certificate that it has by then.
type expiring struct {
	credentials.TransportCredentials
	logger *slog.Logger
	paced  *paced
}

// Clone implements [credentials.TransportCredentials].
func (e *expiring) Clone() credentials.TransportCredentials {
	return &expiring{logger: e.logger, paced: e.paced, TransportCredentials: e.TransportCredentials.Clone()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (e *expiring) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	inner, info, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		// gRPC drops the error. Whoever connects and says nothing, as a TCP
		// health check does, is not worth a line, nor is who comes when we go.
		of, ok := raw.(*connection)
		if cut := ok && of.wasCut(); !cut && !errors.Is(err, io.EOF) {
			peer := raw.RemoteAddr().String()
			if logged, unlogged := e.paced.allow(hostOf(peer)); logged {
				e.logger.Warn("connection refused", "peer", peer, "error", err, "unlogged", unlogged)
			}
		}
		return nil, nil, err
	}
	secured, ok := info.(credentials.TLSInfo)
	if !ok {
		return inner, info, nil
	}
	conn := &expiringConn{Conn: inner}
	if certs := secured.State.PeerCertificates; len(certs) > 0 {
		conn.keepUntil(certs[0].NotAfter)
	}
	return conn, connectionInfo{TLSInfo: secured, conn: conn}, nil
}

// connectionInfo leads from a call to its connection.
type connectionInfo struct {
	credentials.TLSInfo
	conn *expiringConn
}

// connectionOf returns the connection of a call on the secure listener, and the
// context that the CA understands. The connection is nil on a gRPC server of the
// caller's.
func connectionOf(ctx context.Context) (context.Context, *expiringConn) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ctx, nil
	}
	info, ok := from.AuthInfo.(connectionInfo)
	if !ok {
		return ctx, nil
	}
	plain := *from
	plain.AuthInfo = info.TLSInfo
	return peer.NewContext(ctx, &plain), info.conn
}

// plainPeer lets unary calls, those of the CA, see the TLS connection only.
func plainPeer(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, _ = connectionOf(ctx)
	return handler(ctx, request)
}

// expiringConn closes itself when what was proved on it has expired. Without any
// proof, and without anybody who was refused one, it goes on.
type expiringConn struct {
	net.Conn

	mu     sync.Mutex
	closed bool        // guarded by mu
	until  time.Time   // guarded by mu
	timer  *time.Timer // guarded by mu; nil: there is no end yet
}

// keepUntil lets the connection end soon after the given time, or after a later
// one that was given before.
func (c *expiringConn) keepUntil(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.timer != nil && !at.After(c.until) {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.until = at
	c.timer = time.AfterFunc(time.Until(at)+expiryGrace, func() {
		_ = c.Close() // the reader sees that it is closed
	})
}

// Close implements [net.Conn].
func (c *expiringConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const (
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
)

// source returns a source for a certificate whose peers are verified by roots.
func source(t *testing.T, cert tls.Certificate, roots ...*tlstest.CA) *meshtls.Static {
	t.Helper()
	return meshtls.NewStatic(identity(t, cert, roots...))
}

func identity(t *testing.T, cert tls.Certificate, roots ...*tlstest.CA) *meshtls.Identity {
	t.Helper()
	id, err := meshtls.NewIdentity(cert, certificates(roots))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func rootsOnly(t *testing.T, roots ...*tlstest.CA) *meshtls.Static {
	t.Helper()
	id, err := meshtls.NewRoots(certificates(roots))
	if err != nil {
		t.Fatal(err)
	}
	return meshtls.NewStatic(id)
}

func certificates(cas []*tlstest.CA) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, ca := range cas {
		certs = append(certs, ca.Certificate)
	}
	return certs
}

func clientConfig(t *testing.T, params meshtls.ClientParams) *tls.Config {
	t.Helper()
	config, err := meshtls.ClientConfig(params)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func serverConfig(t *testing.T, params meshtls.ServerParams) *tls.Config {
	t.Helper()
	config, err := meshtls.ServerConfig(params)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// strictServer is a server that requires a client of the given roots.
func strictServer(t *testing.T, own meshtls.Source, authorize meshtls.Authorizer) *tls.Config {
	t.Helper()
	return serverConfig(t, meshtls.ServerParams{
		Identity: own, Roots: own, Authorize: authorize, RequireClientCertificate: true,
	})
}

// result is how a connection went on both sides. A client's error is that of
// its handshake or, because a TLS 1.3 client finishes first, of its first read.
type result struct {
	client, server           error
	clientState, serverState tls.ConnectionState
}

func connect(clientTLS, serverTLS *tls.Config) result {
	clientRaw, serverRaw := memnet.Pipe()
	var r result
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer serverRaw.Close()
		server := tls.Server(serverRaw, serverTLS)
		if r.server = server.Handshake(); r.server != nil {
			return
		}
		r.serverState = server.ConnectionState()
		_, r.server = server.Write([]byte{1})
	}()
	client := tls.Client(clientRaw, clientTLS)
	if r.client = client.Handshake(); r.client == nil {
		_, r.client = client.Read(make([]byte, 1))
		r.clientState = client.ConnectionState()
	}
	clientRaw.Close()
	<-done
	return r
}

// reason returns the reason of a typed refusal, 0 for any other error or none.
func reason(err error) meshtls.Reason {
	if refusal, ok := errors.AsType[*meshtls.HandshakeError](err); ok {
		return refusal.Reason
	}
	return 0
}

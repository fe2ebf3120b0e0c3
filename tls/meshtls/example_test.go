package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// An HTTP server and its client authenticate each other. In a program the
// identities come from tls/istioca or tls/filesource.
func Example() {
	customer, payment := exampleIdentities()

	server, err := meshtls.ServerConfig(meshtls.ServerParams{
		Identity:                 meshtls.NewStatic(payment),
		Roots:                    meshtls.NewStatic(payment),
		Authorize:                meshtls.AuthorizeMemberOf("cluster.local"),
		RequireClientCertificate: true,
		NextProtos:               []string{"h2", "http/1.1"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := meshtls.ClientConfig(meshtls.ClientParams{
		Identity:   meshtls.NewStatic(customer),
		Roots:      meshtls.NewStatic(customer),
		Authorize:  meshtls.AuthorizeIDs(meshtls.MustID("spiffe://cluster.local/ns/shop/sa/payment")),
		NextProtos: []string{"h2"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	var network memnet.Network
	inner, err := network.Listen("payment:8080")
	if err != nil {
		fmt.Println(err)
		return
	}
	listener := meshtls.NewListener(inner, meshtls.ListenerConfig{
		Policy: func() (meshtls.ListenPolicy, error) { return meshtls.ListenPolicy{TLS: server}, nil },
	})
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := meshtls.PeerID(*r.TLS)
		fmt.Fprintf(w, "%s over %s", peer.ServiceAccount(), r.Proto)
	})}
	go web.Serve(listener)
	defer web.Close()

	transport := &http.Transport{TLSClientConfig: client, DialContext: network.DialContext, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://payment:8080/")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	fmt.Println(string(body), err)
	// Output: customer over HTTP/2.0 <nil>
}

// One port serves mutual TLS and plaintext, as with Istio's PERMISSIVE.
func ExampleNewListener() {
	customer, payment := exampleIdentities()
	server, err := meshtls.ServerConfig(meshtls.ServerParams{
		Identity:                 meshtls.NewStatic(payment),
		Roots:                    meshtls.NewStatic(payment),
		Authorize:                meshtls.AuthorizeAny(),
		RequireClientCertificate: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := meshtls.ClientConfig(meshtls.ClientParams{
		Identity:  meshtls.NewStatic(customer),
		Roots:     meshtls.NewStatic(customer),
		Authorize: meshtls.AuthorizeAny(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	listener := meshtls.NewListener(inner, meshtls.ListenerConfig{
		Policy: func() (meshtls.ListenPolicy, error) {
			return meshtls.ListenPolicy{TLS: server, Plaintext: true}, nil
		},
	})
	defer listener.Close()

	for _, secure := range []bool{true, false} {
		go func() {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				return
			}
			defer conn.Close()
			if secure {
				conn = tls.Client(conn, client)
			}
			io.WriteString(conn, "hello")
		}()
		conn, err := listener.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _ := io.ReadAll(conn)
		_, isTLS := conn.(*tls.Conn)
		fmt.Println(string(text), isTLS)
		conn.Close()
	}
	// Output:
	// hello true
	// hello false
}

// A refusal is typed, so that a program can tell a wrong peer from an expired
// certificate.
func ExampleHandshakeError() {
	err := fmt.Errorf("dial: %w", &meshtls.HandshakeError{
		Reason: meshtls.NotAuthorized,
		Peer:   meshtls.MustID("spiffe://cluster.local/ns/shop/sa/impostor"),
		Err:    errors.New(`want "spiffe://cluster.local/ns/shop/sa/payment"`),
	})
	if refusal, ok := errors.AsType[*meshtls.HandshakeError](err); ok && refusal.Reason == meshtls.NotAuthorized {
		fmt.Println(refusal.Peer.ServiceAccount(), "is the wrong peer")
	}
	fmt.Println(err)
	// Output:
	// impostor is the wrong peer
	// dial: mutual TLS: peer "spiffe://cluster.local/ns/shop/sa/impostor": peer not authorized: want "spiffe://cluster.local/ns/shop/sa/payment"
}

func ExampleNewStatic() {
	customer, _ := exampleIdentities()
	source := meshtls.NewStatic(nil)
	changed := source.Changed()
	_, err := source.Identity()
	fmt.Println(err)

	source.Set(customer)
	<-changed
	identity, err := source.Identity()
	fmt.Println(identity.ID, err)
	// Output:
	// static source: no identity was set
	// spiffe://cluster.local/ns/shop/sa/customer <nil>
}

// Each trust domain is verified by roots of its own.
func ExampleIdentity_WithBundles() {
	ca, partner := tlstest.NewCA(must{}), tlstest.NewCA(must{})
	own, err := meshtls.NewIdentity(ca.Workload(must{}, paymentID), nil)
	if err != nil {
		panic(err)
	}
	federated := own.WithBundles(map[string][]*x509.Certificate{
		"cluster.local": {ca.Certificate}, "partner.example": {partner.Certificate},
	})
	fmt.Println(federated.ID, len(federated.Bundles()))
	// Output: spiffe://cluster.local/ns/shop/sa/payment 2
}

func exampleIdentities() (customer, payment *meshtls.Identity) {
	ca := tlstest.NewCA(must{})
	var identities []*meshtls.Identity
	for _, id := range []string{customerID, paymentID} {
		identity, err := meshtls.NewIdentity(ca.Workload(must{}, id), []*x509.Certificate{ca.Certificate})
		if err != nil {
			panic(err)
		}
		identities = append(identities, identity)
	}
	return identities[0], identities[1]
}

type must struct{}

func (must) Helper()           {}
func (must) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

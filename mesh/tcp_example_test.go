package mesh_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// A service whose protocol the mesh does not know, and a client of it: the connection
// between them has mutual TLS, and is allowed by a policy.
func ExampleMesh_ServeTCP() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	inner, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	_, port, err := net.SplitHostPort(inner.Addr().String())
	check(err)
	shop.apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [ledger.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 5432, name: tcp-ledger, protocol: TCP}]
  endpoints: [{address: 127.0.0.1, ports: {tcp-ledger: ` + port + `}, serviceAccount: ledger}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ledger, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}], to: [{operation: {ports: ["` + port + `"]}}]}]}
`)
	join := func(serviceAccount string) *mesh.Mesh {
		config, err := shop.bootstrap(serviceAccount)
		check(err)
		m, err := mesh.New(ctx, mesh.WithBootstrap(config))
		check(err)
		return m
	}
	ledger, customer := join("ledger"), join("customer")
	defer closeMesh(ledger)
	defer closeMesh(customer)

	ln, err := ledger.ServeTCP(ctx, inner)
	check(err)
	defer ln.Close()
	ended := make(chan struct{})
	go func() { // ends with the connection
		defer close(ended)
		conn, err := ln.Accept()
		check(err)
		defer conn.Close()
		if secure, ok := conn.(*tls.Conn); ok {
			peer, _ := meshtls.PeerID(secure.ConnectionState())
			fmt.Fprintf(conn, "hello, %s", peer)
		}
	}()

	conn, err := customer.Dial(ctx, "tcp", "ledger.shop.svc.cluster.local:5432")
	check(err)
	defer conn.Close()
	text, err := io.ReadAll(conn)
	check(err)
	fmt.Println(string(text))
	<-ended
	// Output: hello, spiffe://cluster.local/ns/shop/sa/customer
}

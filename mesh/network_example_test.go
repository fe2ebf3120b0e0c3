package mesh_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// Names of services outside the mesh are asked of a resolver of the application's own:
// one with a cache, with DNS over TLS, or, as here, with the answers of a test.
func ExampleNetwork() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	bank := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the bank, called %s", r.Host)
	})}
	go func() { _ = bank.Serve(ln) }() // until Shutdown
	defer func() { check(bank.Shutdown(ctx)) }()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	check(err)
	shop.apply(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: bank, namespace: shop}
spec:
  hosts: [bank.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: ` + port + `}]
`)

	config, err := shop.bootstrap("customer")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config), mesh.Network{
		Lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network == "ip6" || host != "bank.example" {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		},
	})
	check(err)
	defer closeMesh(m)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bank.example/", http.NoBody)
	check(err)
	resp, err := m.HTTPClient().Do(req)
	check(err)
	text, err := io.ReadAll(resp.Body)
	check(err)
	check(resp.Body.Close())
	fmt.Println(string(text))
	// Output: the bank, called bank.example
}

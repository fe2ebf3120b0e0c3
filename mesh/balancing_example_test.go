package mesh_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/mesh"
)

// chosen sends everything to one endpoint.
type chosen int

func (c chosen) Pick(balancer.PickInfo) int { return int(c) }

// A policy of the application, which a DestinationRule asks for by its name.
func ExampleBalancing() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()

	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	var ports []string
	for i := range 2 {
		ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
		check(err)
		_, port, err := net.SplitHostPort(ln.Addr().String())
		check(err)
		ports = append(ports, port)
		server := &http.Server{ReadHeaderTimeout: time.Second, Handler: m.Handler(http.HandlerFunc(
			func(http.ResponseWriter, *http.Request) { fmt.Println("payment", i) }))}
		go func() { _ = server.Serve(ln) }() // until Shutdown
		defer func() { check(server.Shutdown(ctx)) }()
	}
	for _, problem := range shop.server.Update([]istio.File{{Name: "shop.yaml", Data: fmt.Appendf(nil, `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: payment, protocol: HTTP}]
  endpoints:
  - {address: 127.0.0.1, ports: {payment: %s}, serviceAccount: payment}
  - {address: 127.0.0.1, ports: {payment: %s}, serviceAccount: payment}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: payment
  namespace: shop
  annotations:
    inboard.balancer: "{policy: acme.chosen, config: {at: 1}}"
spec: {host: payment.shop.svc.cluster.local}
`, ports[0], ports[1])}}) {
		fmt.Println(problem)
	}

	config, err = shop.bootstrap("customer")
	check(err)
	m, err = mesh.New(ctx, mesh.WithBootstrap(config), mesh.Balancing{
		Policies: map[string]func([]*balancer.Host, map[string]any) balancer.Picker{
			"acme.chosen": func(hosts []*balancer.Host, config map[string]any) balancer.Picker {
				at, _ := config["at"].(float64)
				return chosen(min(int(at), len(hosts)-1))
			},
		},
	})
	check(err)
	defer closeMesh(m)
	client := m.HTTPClient()
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local:8080/", nil)
		check(err)
		resp, err := client.Do(req)
		check(err)
		check(resp.Body.Close())
	}
	// Output:
	// payment 1
	// payment 1
	// payment 1
}

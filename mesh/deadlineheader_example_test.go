package mesh_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// Callers and callees agree on a header in which what is left of a deadline goes
// from hop to hop.
func ExampleWithDeadlineHeader() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	defer shop.close()
	join := func(name string) *mesh.Mesh {
		config, err := shop.bootstrap(name)
		check(err)
		m, err := mesh.New(ctx, mesh.WithBootstrap(config), mesh.WithDeadlineHeader("x-deadline-ms"))
		check(err)
		return m
	}

	payment := join("payment")
	defer closeMesh(payment)
	ln, err := payment.Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: payment.Handler(http.HandlerFunc(
		func(_ http.ResponseWriter, r *http.Request) {
			deadline, ok := r.Context().Deadline()
			fmt.Println("told:", r.Header.Get("X-Deadline-Ms") != "", "bound:", ok && time.Until(deadline) < time.Minute)
		}))}
	go func() { _ = server.Serve(ln) }() // until Shutdown
	defer func() { check(server.Shutdown(ctx)) }()
	shop.publish(ln.Addr())

	customer := join("customer")
	defer closeMesh(customer)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local:8080/rates", nil)
	check(err)
	resp, err := customer.HTTPClient().Do(req)
	check(err)
	check(resp.Body.Close())
	// Output: told: true bound: true
}

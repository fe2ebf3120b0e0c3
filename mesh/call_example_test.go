package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/retry"
)

// One call that is worth half a second and, since it may be repeated, two more
// attempts when the answer is an error of any kind.
func ExampleWithCall() {
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
	ln, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	check(err)
	attempts := 0
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: m.Handler(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			if attempts++; attempts < 3 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))}
	go func() { _ = server.Serve(ln) }() // until Shutdown
	defer func() { check(server.Shutdown(ctx)) }()
	shop.publish(ln.Addr())

	config, err = shop.bootstrap("customer")
	check(err)
	m, err = mesh.New(ctx, mesh.WithBootstrap(config))
	check(err)
	defer closeMesh(m)
	client := m.HTTPClient()
	get := func(ctx context.Context) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local:8080/rates", nil)
		check(err)
		resp, err := client.Do(req)
		check(err)
		check(resp.Body.Close())
		fmt.Println(resp.Status, "after attempts:", attempts)
	}
	get(ctx)
	get(mesh.WithCall(ctx, mesh.CallOptions{RetryOn: retry.On5xx}))

	// Nothing is sent that cannot be answered in time.
	ctx = mesh.WithCall(ctx, mesh.CallOptions{Timeout: 10 * time.Millisecond, MinTime: 50 * time.Millisecond})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local:8080/rates", nil)
	check(err)
	_, err = client.Do(req)
	if failure, ok := errors.AsType[*mesh.Error](err); ok {
		fmt.Println(failure.Kind, "safe to retry:", failure.SafeToRetry())
	}
	// Output:
	// 500 Internal Server Error after attempts: 1
	// 200 OK after attempts: 3
	// timeout safe to retry: true
}

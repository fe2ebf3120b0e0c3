package mesh_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// A server has the limits that one on a network needs. What the application wants
// otherwise, it changes before it serves.
func ExampleMesh_Server() {
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
	server := m.Server(http.NotFoundHandler())
	server.MaxHeaderBytes = 32 << 10
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }() // until Shutdown
	check(server.Shutdown(ctx))
	fmt.Println(<-served, server.ReadHeaderTimeout)
	// Output: http: Server closed 10s
}

package spiffe_test

import (
	"context"
	"fmt"

	"github.com/inboardmesh/inboard/tls/spiffe"
)

// A source is for mesh.WithIdentity, or is made by the mesh itself from the
// certificate provider "spiffe_workload_api" of its bootstrap.
func ExampleNew() {
	source, err := spiffe.New(context.Background(), spiffe.Config{Socket: "tcp://127.0.0.1:8081"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	// Output: spiffe_workload_api: socket: "tcp://127.0.0.1:8081": want a Unix socket such as "unix:///run/spire/sockets/agent.sock"
}

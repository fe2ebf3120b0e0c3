package sds_test

import (
	"context"
	"fmt"

	"github.com/inboardmesh/inboard/tls/sds"
)

// A source is for mesh.WithIdentity, or is made by the mesh itself from the
// certificate provider "sds" of its bootstrap.
func ExampleNew() {
	source, err := sds.New(context.Background(), sds.Config{Socket: "10.0.0.1:8234"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	// Output: sds: socket: "10.0.0.1:8234": want a Unix socket such as "unix:///var/run/secrets/workload-spiffe-uds/socket"
}

package mesh_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/mesh"
)

// A server that only this host reaches tells grpcdebug what the mesh has of the
// control plane.
func ExampleMesh_RegisterClientStatus() {
	shop, err := startShop()
	check(err)
	defer shop.close()
	config, err := shop.bootstrap("customer")
	check(err)
	m, err := mesh.New(context.Background(), mesh.WithBootstrap(config))
	check(err)
	defer m.Close()

	server := grpc.NewServer()
	m.RegisterClientStatus(server)
	fmt.Println(slices.Sorted(maps.Keys(server.GetServiceInfo())))
	// Output: [envoy.service.status.v3.ClientStatusDiscoveryService]
}

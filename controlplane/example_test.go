package controlplane_test

import (
	"context"
	"fmt"
	"net"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
)

const payment = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 8080, name: http, protocol: HTTP}
  endpoints:
  - address: %s
`

func file(address string) []istio.File {
	return []istio.File{{Name: "payment.yaml", Data: fmt.Appendf(nil, payment, address)}}
}

// A control plane in a test or an application: it serves on loopback, and its
// configuration changes while it runs.
func ExampleNew() {
	authority, err := ca.New(ca.Config{}) // in memory
	if err != nil {
		fmt.Println(err)
		return
	}
	server, err := controlplane.New(controlplane.Config{Files: file("10.0.0.1"), CA: authority})
	if err != nil {
		fmt.Println(err)
		return
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, controlplane.Listeners{Secure: listener}); err != nil {
			fmt.Println(err)
		}
	})

	fmt.Println("good:", server.Update(file("10.0.0.2")))
	for _, problem := range server.Update(file("nowhere")) {
		fmt.Println("bad:", problem)
	}

	cancel()
	wg.Wait()
	if err := server.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// good: []
	// bad: payment.yaml:12:14: ServiceEntry shop/payment: spec.endpoints[0].address: "nowhere" is not an IP address: names are for a ServiceEntry with resolution DNS, sockets are not supported
}

// Configuration that a program makes, in place of YAML.
func ExampleServer_Push() {
	server, err := controlplane.New(controlplane.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	err = server.Push(
		&clusterv3.Cluster{
			Name:                 "payment",
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		},
		&endpointv3.ClusterLoadAssignment{ClusterName: "payment"},
	)
	fmt.Println(err)

	err = server.Push(&endpointv3.ClusterLoadAssignment{})
	fmt.Println(err)
	// Output:
	// <nil>
	// push: resource 0: ClusterLoadAssignment has no name
}

package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
)

// A process is started again while the control plane is away.
func ExampleLastKnownGood() {
	dir, err := os.MkdirTemp("", "payment") // in production a place that stays
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	address, stop := startControlPlane(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: rates, namespace: shop}
spec:
  hosts: [rates.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rates, namespace: shop}
spec:
  hosts: [rates]
  http: [{directResponse: {status: 200, body: {string: "1.09"}}}]
`)
	start := func() {
		m, err := mesh.New(context.Background(), mesh.LastKnownGood{Dir: dir}, mesh.WithBootstrap(&bootstrap.Config{
			Servers: []bootstrap.Server{{URI: address, ChannelCreds: bootstrap.Credentials{Type: "insecure"}}},
			Node:    bootstrap.Node{ID: "payment", Metadata: map[string]any{"NAMESPACE": "shop"}},
		}))
		check(err)
		defer closeMesh(m)
		resp, err := m.HTTPClient().Get("http://rates.shop.svc.cluster.local/")
		check(err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		check(err)
		fmt.Printf("%s, from configuration that is %v\n", body, m.ConfigSource())
	}
	start()
	stop()
	start()
	// Output:
	// 1.09, from configuration that is live
	// 1.09, from configuration that is last known good
}

// startControlPlane serves configuration on loopback, as "inboard control-plane"
// does.
func startControlPlane(yaml string) (address string, stop func()) {
	server, err := controlplane.New(controlplane.Config{Files: []istio.File{{Name: "shop.yaml", Data: []byte(yaml)}}})
	check(err)
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	check(err)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(context.Background(), controlplane.Listeners{Plaintext: ln}) }() // until stop
	return ln.Addr().String(), func() { check(errors.Join(server.Close(), <-ended)) }
}

package mesh_test

import (
	"context"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/mesh"
)

// Who the process is, and until when.
func ExampleMesh_Identities() {
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
	for _, i := range m.Identities() {
		fmt.Println(i.Name, i.ID, time.Until(i.NotAfter) > time.Hour, i.Err)
	}
	// Output: default spiffe://cluster.local/ns/shop/sa/payment true <nil>
}

// The control plane goes away: calls go on, and the process says that it is alone.
func ExampleMesh_Streams() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shop, err := startShop()
	check(err)
	config, err := shop.bootstrap("payment")
	check(err)
	m, err := mesh.New(ctx, mesh.WithBootstrap(config), mesh.WithOutboundPolicy(mesh.RegistryOnly))
	check(err)
	defer closeMesh(m)
	show := func(what string, until func(mesh.StreamState) bool) {
		for ctx.Err() == nil {
			states := m.Streams()
			if len(states) == 1 && until(states[0]) {
				fmt.Println(what, states[0].Connected, states[0].Err != nil)
				return
			}
			wait(10 * time.Millisecond)
		}
	}
	fmt.Println("before anything is asked:", len(m.Streams()))
	_, err = m.HTTPClient().Get("http://unknown.shop/")
	fmt.Println(err != nil)
	show("with a control plane:", func(s mesh.StreamState) bool { return s.Connected })
	shop.close()
	show("without it:", func(s mesh.StreamState) bool { return s.Err != nil })
	// Output:
	// before anything is asked: 0
	// true
	// with a control plane: true false
	// without it: false true
}

func wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

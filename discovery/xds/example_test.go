package xds_test

import (
	"fmt"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds"
)

func ExampleNewSource() {
	config, err := bootstrap.Parse([]byte(`{"xds_servers": [
		{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := xds.NewSource(config, xds.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()

	updates := make(chan discovery.Update[*discovery.Target], 1)
	stop := source.WatchTarget("payment.shop.svc.cluster.local:8080", func(u discovery.Update[*discovery.Target]) {
		updates <- u
	})
	update := <-updates
	stop()
	// Nothing listens there.
	fmt.Println(update.Value == nil, update.Err != nil)
	// Output: true true
}

func ExampleSource_Dump() {
	source, err := xds.NewSource(&bootstrap.Config{Servers: []bootstrap.Server{{
		URI: "127.0.0.1:1", ChannelCreds: bootstrap.Credentials{Type: "insecure"},
	}}}, xds.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()

	defer source.WatchTarget("payment:8080", func(discovery.Update[*discovery.Target]) {})()
	for _, resource := range source.Dump() {
		fmt.Println(resource.Type, resource.Name, resource.State)
	}
	// Output: Listener payment:8080 REQUESTED
}

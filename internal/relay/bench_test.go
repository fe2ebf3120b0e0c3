package relay

import (
	"fmt"
	"maps"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// bigDestination is a target of many clusters with ten endpoints each.
func bigDestination(clusters int) *discovery.Target {
	addresses := make([]string, 10)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("10.0.0.%d:9090", i)
	}
	target := destination("payment:9090", "cluster-0", addresses...).Value
	host := target.Routes.VirtualHosts[0]
	for i := range clusters {
		name := fmt.Sprintf("cluster-%d", i)
		one := destination("payment:9090", name, addresses...).Value
		maps.Copy(target.Clusters, one.Clusters)
		route := one.Routes.VirtualHosts[0].Routes[0]
		route.Match.Path.Value = "/" + name
		host.Routes = append([]*discovery.Route{route}, host.Routes...)
	}
	return target
}

// BenchmarkWrite writes a destination of 100 clusters with ten endpoints each for a
// guest, for the first time and when the endpoints of one cluster have changed.
func BenchmarkWrite(b *testing.B) {
	target := bigDestination(100)
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := &follow{name: target.Name, pairs: make(map[string]*writtenCluster)}
			f.writeClient(discovery.Update[*discovery.Target]{Value: target})
		}
	})
	b.Run("one cluster", func(b *testing.B) {
		f := &follow{name: target.Name, pairs: make(map[string]*writtenCluster)}
		b.ReportAllocs()
		for b.Loop() {
			changed := *target
			changed.Clusters = maps.Clone(target.Clusters)
			result := changed.Clusters["cluster-0"]
			result.Endpoints = &discovery.Assignment{Name: "cluster-0", Localities: []discovery.LocalityEndpoints{{
				Weight: 1, Endpoints: []balancer.Endpoint{{Address: "10.0.0.1:9090"}},
			}}}
			changed.Clusters["cluster-0"] = result
			f.writeClient(discovery.Update[*discovery.Target]{Value: &changed})
		}
	})
}

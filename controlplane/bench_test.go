package controlplane

import (
	"fmt"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// fixedSubscription is a client that knows what it was sent last.
type fixedSubscription struct {
	names    map[string]struct{}
	returned map[string]string
}

func (f *fixedSubscription) SubscribedResources() map[string]struct{} { return f.names }
func (f *fixedSubscription) ReturnedResources() map[string]string     { return f.returned }
func (f *fixedSubscription) IsWildcard() bool                         { return false }

// BenchmarkPush is one change of the configuration, of 200 services with ten
// endpoints each, for 100 clients that follow the endpoints of all of them:
// one service changes.
func BenchmarkPush(b *testing.B) {
	files := make([]istio.File, 200)
	subscription := &fixedSubscription{names: make(map[string]struct{})}
	for i := range files {
		name := fmt.Sprintf("s%d", i)
		var addresses []string
		for j := range 10 {
			addresses = append(addresses, fmt.Sprintf("10.0.%d.%d", i, j))
		}
		files[i] = service(name, addresses...)
		subscription.names[cluster(name)] = struct{}{}
	}
	s := mustNew(b, Config{Files: files})
	parse := func(address string) *istio.Config {
		config, problems := istio.Parse(append(files[1:], service("s0", address)), istio.Options{})
		if len(problems) > 0 {
			b.Fatal(problems)
		}
		return config
	}
	configs := []*istio.Config{parse("10.1.0.1"), parse("10.1.0.2")}
	responses := make(chan cache.DeltaResponse, 1000)
	var clients []*client
	for i := range 100 {
		clients = append(clients, &client{server: s, number: uint64(i), types: map[string]*typeState{eds: {}}})
	}
	watch := func(request *discovery.DeltaDiscoveryRequest) {
		for _, c := range clients {
			if _, err := c.CreateDeltaWatch(request, subscription, responses); err != nil {
				b.Fatal(err)
			}
		}
		for len(responses) > 0 {
			subscription.returned = (<-responses).GetReturnedResources()
		}
	}
	watch(&discovery.DeltaDiscoveryRequest{TypeUrl: eds})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		watch(&discovery.DeltaDiscoveryRequest{TypeUrl: eds})
		s.watches.replace(configs[i%2])
		if errs := s.watches.push(); len(errs) > 0 {
			b.Fatal(errs)
		}
		if len(responses) != len(clients) {
			b.Fatalf("%d responses", len(responses))
		}
		subscription.returned = (<-responses).GetReturnedResources()
	}
}

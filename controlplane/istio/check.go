package istio

import (
	"errors"
	"fmt"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// clientsTake asks whether clients take a resource: one that they reject would leave
// them with what they have, or with nothing.
func (o *Options) clientsTake(typeURL string, m proto.Message) error {
	if o.Check == nil {
		return nil
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	return o.Check(typeURL, value)
}

// rejected reports a translation that clients reject, if nothing else is wrong.
func (a at) rejected(err error) {
	reason := strings.ReplaceAll(err.Error(), "\n", "; ")
	a.rep.doubt(a.problem(keyOrValue, "clients refuse the translation: "+reason))
}

// checkTable finds the routes of a table that clients reject, and with it the whole
// table.
func (r *registry) checkTable(t *routeTable, s *service, p *servicePort) {
	whole := r.opts.clientsTake(resource.RouteType, t.whole())
	if whole == nil {
		return
	}
	found := false
	for _, choice := range t.choices {
		for _, one := range choice {
			err := r.opts.clientsTake(resource.RouteType, t.with([]*routev3.Route{one.route}))
			if err == nil || one.at.obj == nil {
				continue
			}
			found = true
			one.at.rejected(withoutPath(err, "virtual_hosts[0].routes[0]."))
		}
	}
	if !found {
		s.at.rejected(fmt.Errorf("port %d of %q: %w", p.number, s.host, whole))
	}
}

// withoutPath leaves out what every path of a message begins with.
func withoutPath(err error, prefix string) error {
	return errors.New(strings.ReplaceAll(err.Error(), prefix, ""))
}

// checkClient checks the listener of a port as clients ask for it. Those of all ports
// differ in their names only.
func (r *registry) checkClient(name string, manager *anypb.Any, s *service, p *servicePort) {
	if r.clientChecked {
		return
	}
	r.clientChecked = true
	if err := r.opts.clientsTake(resource.ListenerType, apiListener(name, manager)); err != nil {
		s.at.rejected(fmt.Errorf("port %d of %q: %w", p.number, s.host, err))
	}
}

// checkServer checks a listener of servers.
func (c *Config) checkServer(l *inboundListener) error {
	const address, port = "127.0.0.1", 1
	return c.opts.clientsTake(resource.ListenerType, &listenerv3.Listener{
		Name: inboundPrefix + hostPort(address, port), Address: socketAddress(address, port),
		ListenerFilters: l.filters, FilterChains: l.chains,
	})
}

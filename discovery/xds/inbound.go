package xds

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// inbound follows the Listener of an address of this process and the route
// tables that its filter chains refer to, and publishes them when they are
// complete (gRFC A36).
type inbound struct {
	address   string
	client    watchClient
	publisher *publisher
	notify    func(discovery.Update[*discovery.Inbound])

	sync.Mutex

	stopped  bool                                       // guarded by Mutex
	listener *resource[discovery.Inbound]               // guarded by Mutex
	routes   map[string]*resource[discovery.RouteTable] // guarded by Mutex; those of the newest listener
	base     *discovery.Inbound                         // guarded by Mutex; the listener in force, without tables
	tables   map[string]*discovery.RouteTable           // guarded by Mutex; its tables
	current  *discovery.Inbound                         // guarded by Mutex; both together, or nil
	last     discovery.Update[*discovery.Inbound]       // guarded by Mutex; what was published
}

func newInbound(address, listener string, client watchClient, p *publisher, notify func(discovery.Update[*discovery.Inbound])) *inbound {
	in := &inbound{
		address: address, client: client, publisher: p, notify: notify,
		routes: make(map[string]*resource[discovery.RouteTable]),
	}
	in.Lock()
	defer in.Unlock()
	in.listener = watchLocked(client, in, decode.ListenerURL, listener, func(decoded any) (*discovery.Inbound, error) {
		return serverListener(decoded, address)
	})
	return in
}

// stop ends all watches.
func (in *inbound) stop() {
	in.Lock()
	defer in.Unlock()
	in.stopped = true
	in.listener.leaveLocked()
	in.followRoutesLocked(nil)
}

// updateLocked works out what an event means.
func (in *inbound) updateLocked() {
	base := in.listener.value
	in.followRoutesLocked(base)
	tables := make(map[string]*discovery.RouteTable, len(in.routes))
	complete := base != nil
	for name, r := range in.routes {
		tables[name] = r.value
		complete = complete && r.value != nil
	}
	switch {
	case base == nil, !complete && base == in.base:
		in.base, in.tables, in.current = nil, nil, nil // withdrawn
	case complete && (base != in.base || !maps.Equal(tables, in.tables)):
		in.base, in.tables, in.current = base, tables, withTables(base, tables)
	}
	in.publisher.add(in)
}

// followRoutesLocked follows exactly the route tables of a listener.
func (in *inbound) followRoutesLocked(base *discovery.Inbound) {
	wanted := make(map[string]struct{})
	if base != nil {
		for chain := range chainsOf(base) {
			if chain.Routes == nil && chain.RouteName != "" {
				wanted[chain.RouteName] = struct{}{}
			}
		}
	}
	for name := range wanted {
		if in.routes[name] == nil {
			in.routes[name] = watchLocked(in.client, in, decode.RouteURL, name, asIs[discovery.RouteTable])
		}
	}
	for name, r := range in.routes {
		if _, ok := wanted[name]; !ok {
			r.leaveLocked()
			delete(in.routes, name)
		}
	}
}

// chainsOf iterates over the filter chains and the default chain.
func chainsOf(in *discovery.Inbound) func(yield func(*discovery.FilterChain) bool) {
	return func(yield func(*discovery.FilterChain) bool) {
		for i := range in.Chains {
			if !yield(&in.Chains[i]) {
				return
			}
		}
		if in.Default != nil {
			yield(in.Default)
		}
	}
}

// withTables returns base with a table in each chain: base itself if it has
// them already.
func withTables(base *discovery.Inbound, tables map[string]*discovery.RouteTable) *discovery.Inbound {
	if len(tables) == 0 {
		return base
	}
	full := *base
	full.Chains = slices.Clone(base.Chains)
	if base.Default != nil {
		chain := *base.Default
		full.Default = &chain
	}
	for chain := range chainsOf(&full) {
		if chain.Routes == nil {
			chain.Routes = tables[chain.RouteName]
		}
	}
	return &full
}

// deliver publishes what is in force, if that is news.
func (in *inbound) deliver() {
	if update, ok := in.news(); ok {
		in.notify(update)
	}
}

func (in *inbound) news() (update discovery.Update[*discovery.Inbound], ok bool) {
	in.Lock()
	defer in.Unlock()
	if in.stopped {
		return update, false
	}
	update.Value = in.current
	update.Err = in.troubleLocked()
	if update.Value == nil && update.Err == nil {
		return update, false // it is on its way
	}
	if update.Value == in.last.Value && sameError(update.Err, in.last.Err) {
		return update, false
	}
	in.last = update
	return update, true
}

// troubleLocked returns why there is nothing in force, or what is wrong
// although there is.
func (in *inbound) troubleLocked() error {
	var found troubles
	if in.current != nil || in.listener.value == nil {
		found.add(in.listener.err)
	}
	for _, name := range slices.Sorted(maps.Keys(in.routes)) {
		if r := in.routes[name]; in.current != nil || r.value == nil {
			found.add(referenced(r.err))
		}
	}
	return found.err()
}

// outbound accepts the Listener of a destination.
func outbound(decoded any) (*discovery.APIListener, error) {
	l, err := asIs[decode.ListenerResource](decoded)
	switch {
	case err != nil:
		return nil, err
	case l.Outbound == nil:
		return nil, fmt.Errorf("the Listener is for connections to address %q: expected one with an api_listener", l.Inbound.Address)
	}
	return l.Outbound, nil
}

// serverListener accepts the Listener of an address of this process. Its
// address must be that address (gRFC A36): the policies of one listener are not
// applied to another.
func serverListener(decoded any, address string) (*discovery.Inbound, error) {
	l, err := asIs[decode.ListenerResource](decoded)
	switch {
	case err != nil:
		return nil, err
	case l.Inbound == nil:
		return nil, fmt.Errorf("the Listener %q is for calls to a destination: expected one with an address", l.Outbound.Name)
	case !sameAddress(l.Inbound.Address, address):
		return nil, fmt.Errorf("the Listener %q has the address %q, this process listens on %q", l.Inbound.Name, l.Inbound.Address, address)
	}
	return l.Inbound, nil
}

// sameAddress reports whether two listen addresses are equal. All unspecified
// addresses, "0.0.0.0" and "::", are.
func sameAddress(a, b string) bool {
	if a == b {
		return true
	}
	left, errA := netip.ParseAddrPort(a)
	right, errB := netip.ParseAddrPort(b)
	if errA != nil || errB != nil || left.Port() != right.Port() {
		return false
	}
	return left.Addr().Unmap() == right.Addr().Unmap() ||
		left.Addr().IsUnspecified() && right.Addr().IsUnspecified()
}

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

// inbound follows the Listener of an address of this process, the route tables
// that its filter chains refer to and the clusters that its filters call, and
// publishes them when they are complete (gRFC A36). As with a target, what is
// new is a plan until each of its clusters either can be used or has a definite
// error; a cluster that cannot be had holds nobody up.
type inbound struct {
	address   string
	client    watchClient
	publisher *publisher
	notify    func(discovery.Update[*discovery.Inbound])

	sync.Mutex

	stopped  bool                                       // guarded by Mutex
	left     bool                                       // guarded by Mutex; nobody is told of it any more
	listener *resource[discovery.Inbound]               // guarded by Mutex
	routes   map[string]*resource[discovery.RouteTable] // guarded by Mutex; those of the newest listener
	clusters clusters                                   // guarded by Mutex; those of current and next
	secrets  secrets                                    // guarded by Mutex; those of current and of the newest listener
	current  *inboundPlan                               // guarded by Mutex; in force, or nil
	next     *inboundPlan                               // guarded by Mutex; not ready yet, or nil
	last     discovery.Update[*discovery.Inbound]       // guarded by Mutex; what was published
	lastPlan *inboundPlan                               // guarded by Mutex; of which last was assembled
	others   outsiders                                  // guarded by Mutex
}

// inboundPlan is a listener and its route tables. It is immutable.
type inboundPlan struct {
	base     *discovery.Inbound               // without tables
	tables   map[string]*discovery.RouteTable // by name
	full     *discovery.Inbound               // both together
	clusters []string                         // that filters call
}

func newInbound(address, listener string, client watchClient, p *publisher, notify func(discovery.Update[*discovery.Inbound])) *inbound {
	in := &inbound{
		address: address, client: client, publisher: p, notify: notify,
		routes:   make(map[string]*resource[discovery.RouteTable]),
		clusters: make(clusters),
		secrets:  make(secrets),
		others:   outsiders{home: authorityOf(listener)},
	}
	in.Lock()
	defer in.Unlock()
	in.listener = watchLocked(client, in, decode.ListenerURL, listener, func(decoded any) (*discovery.Inbound, error) {
		return serverListener(decoded, address)
	})
	return in
}

// leave tells nobody any more. It reports whether anything is in force.
func (in *inbound) leave() bool {
	in.Lock()
	defer in.Unlock()
	in.left = true
	return in.current != nil
}

// withdrawnLocked ends one that is left: who comes next has no use to go on with.
func (in *inbound) withdrawnLocked() bool {
	if in.left {
		in.stopLocked()
	}
	return in.left
}

// stop ends all watches.
func (in *inbound) stop() {
	in.Lock()
	defer in.Unlock()
	in.stopLocked()
}

func (in *inbound) stopLocked() {
	in.stopped = true
	in.current, in.next = nil, nil
	in.listener.leaveLocked()
	in.followRoutesLocked(nil)
	in.followClustersLocked()
	in.secrets.leaveLocked()
}

// clusterLocked works out what an event of a cluster means.
func (in *inbound) clusterLocked(*cluster) { in.updateLocked() }

// updateLocked works out what an event means.
func (in *inbound) updateLocked() {
	in.planLocked()
	in.followClustersLocked()
	if in.next != nil && in.readyLocked(in.next) {
		in.current, in.next = in.next, nil
		in.followClustersLocked()
		in.followSecretsLocked(in.listener.value)
	}
	in.publisher.add(in)
}

// planLocked finds the newest plan. It is next unless it is in force already.
func (in *inbound) planLocked() {
	base := in.listener.value
	in.followRoutesLocked(base)
	in.followSecretsLocked(base)
	tables := make(map[string]*discovery.RouteTable, len(in.routes))
	complete := base != nil
	for name, r := range in.routes {
		tables[name] = r.value
		complete = complete && r.value != nil
	}
	if complete {
		_, complete, _ = in.secrets.values(base.SecretUses()) // troubleLocked says why not
	}
	switch {
	case !complete:
		in.next = nil
		if base == nil || in.current != nil && in.current.base == base {
			in.current = nil // withdrawn
		}
	case in.current.is(base, tables):
		in.next = nil
	case !in.next.is(base, tables):
		full := withTables(base, tables)
		in.next = &inboundPlan{base: base, tables: tables, full: full, clusters: filterClusters(full)}
	}
}

func (p *inboundPlan) is(base *discovery.Inbound, tables map[string]*discovery.RouteTable) bool {
	return p != nil && p.base == base && maps.Equal(p.tables, tables)
}

// readyLocked reports whether a plan can be put into force.
func (in *inbound) readyLocked(p *inboundPlan) bool {
	for _, name := range p.clusters {
		if !in.clusters[name].ready() {
			return false
		}
	}
	return true
}

// followClustersLocked follows exactly the clusters of the plans and brings each
// up to date.
func (in *inbound) followClustersLocked() {
	var wanted []string
	for _, p := range []*inboundPlan{in.current, in.next} {
		if p != nil {
			wanted = append(wanted, p.clusters...)
		}
	}
	in.others.met = false
	in.clusters.followLocked(in.client, in, wanted)
	in.others.settleLocked()
}

// waitsLocked is as [outsiders] has it.
func (in *inbound) waitsLocked(err error) bool {
	return in.others.waitsLocked(err, in.current != nil, in)
}

// filterClusters returns the clusters that the filters of a listener call,
// sorted.
func filterClusters(in *discovery.Inbound) []string {
	seen := make(map[string]struct{})
	note := func(config discovery.FilterConfig) {
		if user, ok := config.(discovery.ClusterUser); ok {
			for _, name := range user.UsedClusters() {
				seen[name] = struct{}{}
			}
		}
	}
	overrides := func(of map[string]discovery.FilterOverride) {
		for _, o := range of {
			note(o.Config)
		}
	}
	for chain := range chainsOf(in) {
		for i := range chain.Filters {
			note(chain.Filters[i].Config)
		}
		if chain.Routes == nil {
			continue
		}
		for _, host := range chain.Routes.VirtualHosts {
			overrides(host.Filters)
			for _, r := range host.Routes {
				overrides(r.Filters)
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
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

// followSecretsLocked follows the secrets of a listener and of the one in force.
func (in *inbound) followSecretsLocked(base *discovery.Inbound) {
	var uses []discovery.SecretUse
	if base != nil {
		uses = base.SecretUses()
	}
	if in.current != nil {
		uses = append(uses, in.current.base.SecretUses()...)
	}
	in.secrets.followLocked(in.client, in, uses)
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
	if in.stopped || in.left {
		return update, false
	}
	update.Value = in.assembleLocked()
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

// assembleLocked returns the plan in force with its clusters: what was published
// if it is still the same.
func (in *inbound) assembleLocked() *discovery.Inbound {
	if in.current == nil {
		return nil
	}
	values, _, _ := in.secrets.values(in.current.base.SecretUses())
	if len(in.current.clusters)+len(values) == 0 {
		return in.current.full
	}
	last := in.last.Value
	assembled := *in.current.full
	assembled.Secrets = values
	assembled.Clusters = make(map[string]discovery.ClusterResult, len(in.current.clusters))
	in.clusters.assemble(in.current.clusters, assembled.Clusters)
	if last != nil && in.lastPlan == in.current && maps.EqualFunc(assembled.Clusters, last.Clusters, sameResult) &&
		maps.Equal(assembled.Secrets, last.Secrets) {
		return last
	}
	in.lastPlan = in.current
	return &assembled
}

// troubleLocked returns why there is nothing in force, or what is wrong
// although there is.
func (in *inbound) troubleLocked() error {
	var found troubles
	missing := func(err error) error {
		if in.current != nil {
			return err // ambient
		}
		return unusable(err)
	}
	if in.current != nil || in.listener.value == nil {
		found.add(missing(in.listener.err))
	}
	for _, name := range slices.Sorted(maps.Keys(in.routes)) {
		if r := in.routes[name]; in.current != nil || r.value == nil {
			found.add(missing(referenced(r.err)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.clusters)) {
		if in.current != nil {
			in.clusters[name].ambient(&found)
		} else if err := in.clusters[name].waitingFor(); err != nil {
			found.add(referenced(err))
		}
	}
	if in.current != nil {
		in.secrets.ambient(&found)
	} else {
		found.add(missing(referenced(in.secrets.waitingFor())))
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

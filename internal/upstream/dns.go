package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// lookupTimeout bounds one question to the resolver.
const lookupTimeout = 10 * time.Second

// Lookup finds the addresses of a host name; network is "ip", "ip4" or "ip6".
// [net.Resolver.LookupNetIP] is one.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// resolution keeps the addresses of a cluster's names. Each name has a goroutine,
// which asks for it again and again. While the resolver fails, what it said last
// stays in force.
type resolution struct {
	cluster  *Cluster
	settings discovery.DNS
	hosts    []string
	cancel   context.CancelFunc
	// asked is closed when every name has been asked for once.
	asked chan struct{}

	mu      sync.Mutex
	missing int                      // guarded by mu; names that were not asked for yet
	answers map[string]resolverReply // guarded by mu; by name
}

// resolverReply is what is known of a name.
type resolverReply struct {
	addresses []netip.Addr // of the last good answer
	err       error        // why the last question had no good answer
}

// followNames makes the cluster's names be resolved as its configuration says. The
// caller holds applyMu.
func (c *Cluster) followNames(state *clusterState) {
	old := c.names.Load()
	if state.config.DNS == nil || c.manager.idle {
		c.stopNames()
		return
	}
	hosts := namesOf(state.endpoints)
	if old != nil && old.settings == *state.config.DNS && slices.Equal(old.hosts, hosts) {
		return
	}
	ctx, cancel := context.WithCancel(c.manager.ctx)
	next := &resolution{
		cluster: c, settings: *state.config.DNS, hosts: hosts, cancel: cancel,
		asked: make(chan struct{}), missing: len(hosts), answers: make(map[string]resolverReply, len(hosts)),
	}
	if old != nil {
		old.cancel()
		next.inherit(old)
	}
	if len(hosts) == 0 {
		close(next.asked)
	}
	c.names.Store(next)
	for _, host := range hosts {
		c.manager.background(func() { next.follow(ctx, host) })
	}
}

// stopNames ends the questions. The caller holds applyMu.
func (c *Cluster) stopNames() {
	if old := c.names.Swap(nil); old != nil {
		old.cancel()
	}
}

// namesOf are the host names among the addresses of an assignment, sorted, each once.
func namesOf(a *discovery.Assignment) []string {
	var names []string
	for i := range a.Localities {
		for j := range a.Localities[i].Endpoints {
			if host, _, named := splitName(a.Localities[i].Endpoints[j].Address); named {
				names = append(names, host)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// splitName splits an address and tells whether it begins with a name.
func splitName(address string) (host, port string, named bool) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", "", false
	}
	_, err = netip.ParseAddr(host)
	return host, port, err != nil
}

// inherit takes over the answers that another resolution had.
func (r *resolution) inherit(old *resolution) {
	if old.settings.Family != r.settings.Family {
		return
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	for _, host := range r.hosts {
		if known := old.answers[host].addresses; known != nil {
			r.answers[host] = resolverReply{addresses: known}
		}
	}
}

// follow asks for one name until ctx ends.
func (r *resolution) follow(ctx context.Context, host string) {
	failures := 0
	for first := true; ; first = false {
		start := time.Now()
		addresses, err := r.lookup(ctx, host)
		if ctx.Err() != nil {
			return
		}
		if hooks := r.cluster.manager.options.Hooks; hooks != nil && hooks.NameResolved != nil {
			hooks.NameResolved(observe.ResolveEvent{
				Cluster: r.cluster.name, Host: host, Addresses: len(addresses), Duration: time.Since(start), Err: err,
			})
		}
		if err != nil {
			failures++
		} else {
			failures = 0
		}
		if r.learn(host, addresses, err) {
			r.cluster.readdress(r)
		}
		if first {
			r.count()
		}
		timer := time.NewTimer(r.wait(failures))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// count counts a name that has been asked for the first time.
func (r *resolution) count() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.missing--; r.missing == 0 {
		close(r.asked)
	}
}

// wait is how long to wait after a good answer, or after failures in a row.
func (r *resolution) wait(failures int) time.Duration {
	s := &r.settings
	if failures > 0 && s.FailureBase > 0 {
		limit := s.FailureBase
		for i := 1; i < failures && limit < s.FailureMax; i++ {
			limit *= 2
		}
		limit = max(min(limit, s.FailureMax), 1)
		return time.Duration(rand.Int64N(int64(limit))) + 1
	}
	wait := s.Refresh
	if s.Jitter > 0 {
		wait += time.Duration(rand.Int64N(int64(s.Jitter)))
	}
	return max(wait, time.Millisecond)
}

// lookup asks for the addresses of a name, by the family of the settings.
func (r *resolution) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var networks []string
	switch r.settings.Family {
	case discovery.DNSAuto:
		networks = []string{"ip6", "ip4"}
	case discovery.DNSV4Preferred:
		networks = []string{"ip4", "ip6"}
	case discovery.DNSV4Only:
		networks = []string{"ip4"}
	case discovery.DNSV6Only:
		networks = []string{"ip6"}
	case discovery.DNSAll:
		networks = []string{"ip"}
	}
	var errs []error
	for _, network := range networks {
		found, err := r.cluster.manager.options.Lookup(ctx, network, host)
		if addresses := plain(found); err == nil && len(addresses) > 0 {
			return addresses, nil
		}
		if err == nil {
			err = fmt.Errorf("lookup %s: no address", host)
		}
		errs = append(errs, err)
	}
	return nil, errs[len(errs)-1]
}

// plain returns addresses without zones and IPv4 in IPv6, each once, in their order.
func plain(found []netip.Addr) []netip.Addr {
	addresses := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		if a = a.Unmap().WithZone(""); a.IsValid() && !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// learn notes an answer and reports whether the endpoints are others now.
func (r *resolution) learn(host string, addresses []netip.Addr, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	reply := r.answers[host]
	if reply.err = err; err != nil {
		r.answers[host] = reply
		return false
	}
	if !r.settings.Logical {
		// Resolvers rotate their answers.
		slices.SortFunc(addresses, netip.Addr.Compare)
	}
	changed := !r.settings.Logical && !slices.Equal(addresses, reply.addresses)
	reply.addresses = addresses
	r.answers[host] = reply
	return changed
}

func (r *resolution) reply(host string) resolverReply {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answers[host]
}

// err is why a name has no address, nil if all have.
func (r *resolution) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, host := range r.hosts {
		if reply := r.answers[host]; reply.err != nil && len(reply.addresses) == 0 {
			return reply.err
		}
	}
	return nil
}

// localities are those of an assignment with addresses in the place of names,
// unless a name is one endpoint.
func (r *resolution) localities(named []discovery.LocalityEndpoints) []discovery.LocalityEndpoints {
	if r == nil || r.settings.Logical {
		return named
	}
	resolved := slices.Clone(named)
	seen := make(map[string]struct{})
	for i := range resolved {
		var endpoints []balancer.Endpoint
		add := func(e balancer.Endpoint) {
			if _, ok := seen[e.Address]; !ok { // two names may stand for one address
				seen[e.Address] = struct{}{}
				endpoints = append(endpoints, e)
			}
		}
		for _, e := range resolved[i].Endpoints {
			host, port, isName := splitName(e.Address)
			if !isName {
				add(e)
				continue
			}
			if e.Hostname == "" {
				e.Hostname = host
			}
			for _, address := range r.reply(host).addresses {
				e.Address = net.JoinHostPort(address.String(), port)
				add(e)
			}
		}
		resolved[i].Endpoints = endpoints
	}
	return resolved
}

// readdress gives the cluster the endpoints that a resolution knows now.
func (c *Cluster) readdress(r *resolution) {
	var ended []balancer.Ejection
	defer func() { c.ejectionsChanged(ended) }() // without the lock
	c.applyMu.Lock()
	defer c.applyMu.Unlock()
	state := c.state.Load()
	if c.names.Load() != r || state.err != nil {
		return
	}
	ended = c.updateEndpoints(state)
	c.checkHealth(state.config.HealthCheck)
	for e := range c.Made {
		e.followBreaker()
	}
}

// Await waits until the names of a cluster of type DNS, or of those that an aggregate
// consists of, have been asked for once, so that its first calls find endpoints.
// Other clusters are not waited for.
func (c *Cluster) Await(ctx context.Context) error {
	for _, leaf := range c.state.Load().leaves {
		if err := leaf.Await(ctx); err != nil {
			return err
		}
	}
	r := c.names.Load()
	if r == nil {
		return nil
	}
	select {
	case <-r.asked:
		return nil
	default:
	}
	if c.set.Len() > 0 && !r.settings.Logical {
		return nil
	}
	select {
	case <-r.asked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the addresses of cluster %q: %w", c.name, context.Cause(ctx))
	case <-c.manager.ctx.Done():
		return ErrClosed
	}
}

// Dial opens a connection to an address of the endpoint. Of the addresses that a
// name stands for, or that the endpoint has beside its own, it is to the first that
// answers.
func (e *Endpoint) Dial(ctx context.Context, address string) (net.Conn, error) {
	r := e.cluster.names.Load()
	host, port, named := "", "", false
	if r != nil && r.settings.Logical {
		host, port, named = splitName(address)
	}
	addresses := []string{address}
	if named {
		reply := r.reply(host)
		if len(reply.addresses) == 0 {
			if reply.err == nil {
				reply.err = fmt.Errorf("lookup %s: no answer yet", host)
			}
			return nil, reply.err
		}
		addresses = addresses[:0]
		for _, a := range reply.addresses {
			addresses = append(addresses, net.JoinHostPort(a.String(), port))
		}
	} else if address == e.address {
		addresses = append(addresses, e.host.Endpoint().Additional...)
	}
	var families discovery.Families
	if config := e.cluster.Config(); config != nil {
		families = config.Families
	}
	return e.dialFirst(ctx, inTurn(addresses, families))
}

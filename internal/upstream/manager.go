// Package upstream runs the clusters of a mesh: their endpoints, connections,
// limits and breakers. HTTP and gRPC calls to one endpoint share its state.
package upstream

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/slim"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// ErrClosed is returned for a use after Close.
var ErrClosed = errors.New("mesh closed")

// Options configure a [Manager].
type Options struct {
	// Name is what this process is called. Calls whose endpoint is chosen by where
	// they come from are hashed by it.
	Name string
	// Identity finds the certificate provider instance that a cluster's TLS
	// settings name.
	Identity func(instance string) (meshtls.Source, error)
	// Dial opens connections to endpoints.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup resolves names; nil is the process's resolver.
	Lookup Lookup
	// Transport is the template for HTTP connections. It is only cloned.
	Transport *http.Transport
	Hooks     *observe.Hooks
	// LocalCluster is the name of the cluster of which this process is an endpoint,
	// and Locality where it runs, for zone aware routing; zero if unknown.
	LocalCluster string
	Locality     balancer.Locality
	// Number is this process's among all that call the same clusters, if Numbered
	// is true, see [balancer.Client].
	Number   uint32
	Numbered bool
}

func (o *Options) client() balancer.Client {
	return balancer.Client{Name: o.Name, Number: o.Number, Numbered: o.Numbered}
}

// Manager owns the running clusters of one mesh. Safe for concurrent use.
type Manager struct {
	options Options
	// systemRoots verify servers outside the mesh.
	systemRoots meshtls.Source
	// ctx ends at Close and bounds everything in the background.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// ending is whether Close follows soon.
	ending atomic.Bool
	writes writeBounds

	// idle is a manager of clusters that nobody calls: they are not checked.
	idle bool

	mu       sync.Mutex
	clusters map[string]*Cluster // guarded by mu
	// mostClusters and mostConns are how many there were, see [slim.Fit]; guarded by
	// mu.
	mostClusters, mostConns int
	// conns are all open connections, those of clusters that drain included.
	conns  map[*conn]struct{} // guarded by mu
	closed bool               // guarded by mu
	// checking is set while somebody looks after connections that no call asks for;
	// guarded by mu.
	checking bool
	// leaving are the loads of clusters that nobody holds any more, until the control
	// plane was told of them; guarded by mu.
	leaving []leavingLoad
	// local is the newest assignment of the local cluster, nil without one; guarded
	// by mu.
	local *discovery.Assignment
}

// NewManager returns a manager without clusters. Close ends it.
func NewManager(options Options) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	if options.Lookup == nil {
		options.Lookup = net.DefaultResolver.LookupNetIP
	}
	return &Manager{options: options, systemRoots: meshtls.NewSystemRoots(), ctx: ctx, cancel: cancel, clusters: make(map[string]*Cluster), conns: make(map[*conn]struct{}), writes: defaultWriteBounds()}
}

// Name is what this process is called, "" if that is not known.
func (m *Manager) Name() string { return m.options.Name }

// Hold applies the newest configuration of each cluster and returns the
// running ones, each held once more than before: what survives keeps its
// connections, counters and breaker. Release gives them back.
func (m *Manager) Hold(results map[string]discovery.ClusterResult) map[string]*Cluster {
	held := make(map[string]*Cluster, len(results))
	added := m.missing(results)
	m.mu.Lock()
	for name := range results {
		c := m.clusters[name]
		if c == nil {
			if c = added[name]; c == nil { // it was there a moment ago
				c = newCluster(m, name)
			}
			m.clusters[name] = c
		}
		c.holders++
		held[name] = c
	}
	m.mu.Unlock()
	m.apply(held, results)
	return held
}

// Renew applies the newest configuration of clusters that are held, if they are those
// of the results: they stay held as often as they are. Otherwise it reports false, and
// they are to be replaced, by Hold and Release. Of thousands of which one has changed
// it costs a look at each.
func (m *Manager) Renew(held map[string]*Cluster, results map[string]discovery.ClusterResult) bool {
	if len(held) != len(results) {
		return false
	}
	for name := range results {
		if held[name] == nil {
			return false
		}
	}
	m.apply(held, results)
	return true
}

// apply gives each of the clusters its newest configuration.
func (m *Manager) apply(held map[string]*Cluster, results map[string]discovery.ClusterResult) {
	m.mu.Lock()
	if r := results[m.options.LocalCluster]; r.Err == nil && r.Endpoints != nil {
		m.local = r.Endpoints
	}
	local := m.local
	m.mu.Unlock()
	n := 0
	for _, name := range applying(results) {
		if held[name].apply(results[name], leavesOf(held, results[name].Leaves), local) {
			if n++; n%yieldAfter == 0 {
				runtime.Gosched()
			}
		}
	}
}

// yieldAfter is after how many of many clusters those who wait for a processor go
// first: calls must not wait until all are done.
const yieldAfter = 32

// missing makes the clusters that are not there yet. Of thousands that come at once
// that takes too long for the lock, which new connections need.
func (m *Manager) missing(results map[string]discovery.ClusterResult) map[string]*Cluster {
	var names []string
	m.mu.Lock()
	for name := range results {
		if m.clusters[name] == nil {
			names = append(names, name)
		}
	}
	m.mu.Unlock()
	added := make(map[string]*Cluster, len(names))
	for _, name := range names {
		added[name] = newCluster(m, name)
	}
	return added
}

// Release gives back what Hold returned. A cluster that nobody holds any more
// drains: calls in flight end where they are, idle connections are closed.
func (m *Manager) Release(held map[string]*Cluster) {
	var gone []*Cluster
	m.mu.Lock()
	for name, c := range held {
		c.holders--
		if c.holders == 0 && m.clusters[name] == c {
			delete(m.clusters, name)
			gone = append(gone, c)
			m.leaveLoadLocked(c)
		}
	}
	m.clusters = slim.Fit(m.clusters, &m.mostClusters)
	m.mu.Unlock()
	for _, c := range gone {
		c.drain()
	}
}

// Find returns a cluster that somebody holds, nil if nobody does.
func (m *Manager) Find(name string) *Cluster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clusters[name]
}

// Ending says that Close follows: those who let go of their responses do not wait for
// peers that do not read.
func (m *Manager) Ending() {
	m.ending.Store(true)
	m.mu.Lock()
	conns := slices.Collect(maps.Keys(m.conns))
	m.mu.Unlock()
	for _, c := range conns {
		if c.http2 {
			c.raw.stall.check()
		}
	}
}

// Close closes every connection and waits for the manager's goroutines. Calls
// in flight fail.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	clusters := slices.Collect(maps.Values(m.clusters))
	conns := slices.Collect(maps.Keys(m.conns))
	m.mu.Unlock()
	m.cancel()
	m.Ending()
	for _, c := range clusters {
		c.close()
	}
	for _, c := range conns {
		c.pool.discard(c)
		_ = c.raw.Close() // if an upgrade took it over
	}
	m.wg.Wait()
}

// opened takes a connection into the manager's books. It reports false once
// the manager is closed.
func (m *Manager) opened(c *conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.conns[c] = struct{}{}
	if c.secured != nil {
		m.watchLocked()
	}
	return true
}

// gone takes a connection out of the books.
func (m *Manager) gone(c *conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.conns, c)
	m.conns = slim.Fit(m.conns, &m.mostConns)
}

// background runs f on a goroutine that Close waits for. It reports false, and
// does nothing, once the manager is closed.
func (m *Manager) background(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Go(f)
	return true
}

package upstream

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// maxLoadNames bounds the metrics of one locality, and of one endpoint, whose names come
// from endpoints; maxAllNames those of all endpoints of a cluster.
const (
	maxLoadNames = 200
	maxAllNames  = 20_000
)

// loadTable counts the calls of a cluster for the control plane. A cluster has none
// while nobody asks.
type loadTable struct {
	reports atomic.Pointer[discovery.LoadReports]
	names   atomic.Int64 // of metrics, since the last report

	mu      sync.Mutex
	loads   []*Load           // guarded by mu; those with something to tell
	drops   map[string]uint64 // guarded by mu; since the last report
	dropped uint64            // guarded by mu; those and what limits refused
}

// Load counts the calls to one endpoint of a cluster. A nil one counts nothing.
type Load struct {
	table    *loadTable
	address  string
	locality balancer.Locality

	// issued is below 0 if a call was taken back that was told already.
	issued            atomic.Int64
	succeeded, failed atomic.Uint64
	running           atomic.Int64
	// listed is true while it is one of the table's.
	listed atomic.Bool

	mu      sync.Mutex
	metrics map[string]discovery.MetricLoad // guarded by mu; since the last report
}

// followLoad begins or ends to count, as the configuration says. What was counted
// counts.
func (c *Cluster) followLoad(reports *discovery.LoadReports) {
	table := c.load.Load()
	switch {
	case reports == nil:
		c.load.Store(nil)
	case table == nil:
		table = &loadTable{drops: make(map[string]uint64)}
		table.reports.Store(reports)
		c.load.Store(table)
	default:
		table.reports.Store(reports)
	}
}

// Issued counts a call that begins at the endpoint. Done of what it returns, which
// may be nil, ends it.
func (e *Endpoint) Issued() *Load {
	table := e.cluster.load.Load()
	if table == nil {
		return nil
	}
	l := table.of(e)
	l.issued.Add(1)
	l.running.Add(1)
	l.list() // after it has counted, see quiet
	return l
}

// of is what counts the calls to an endpoint where it is now.
func (t *loadTable) of(e *Endpoint) *Load {
	locality := e.host.Locality()
	for {
		l := e.load.Load()
		if l != nil && l.table == t && l.locality == locality {
			return l
		}
		next := &Load{table: t, address: e.address, locality: locality}
		if e.load.CompareAndSwap(l, next) {
			return next
		}
	}
}

// list lets the next report tell of the endpoint.
func (l *Load) list() {
	if l.listed.Load() {
		return
	}
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	if !l.listed.Swap(true) {
		l.table.loads = append(l.table.loads, l)
	}
}

// Done counts how a call ended. It is called once.
func (l *Load) Done(o *outcome.Outcome) {
	if l == nil {
		return
	}
	if o.Verdict() == outcome.Success {
		l.succeeded.Add(1)
	} else {
		l.failed.Add(1)
	}
	l.running.Add(-1) // after it has counted, see quiet
}

// Withdraw takes back a call that could not be connected: it goes to another
// endpoint.
func (l *Load) Withdraw() {
	if l != nil {
		l.issued.Add(-1)
		l.running.Add(-1) // after it has counted, see quiet
	}
}

// CountDrop counts a call that was refused before it got an endpoint. category is
// "" for a limit.
func (c *Cluster) CountDrop(category string) {
	table := c.load.Load()
	if table == nil {
		return
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	table.dropped++
	if category != "" {
		table.drops[category]++
	}
}

// noteMetrics counts what an endpoint says of itself with a response.
func (e *Endpoint) noteMetrics(r *balancer.LoadReport) {
	table := e.cluster.load.Load()
	if table == nil {
		return
	}
	names := table.reports.Load().Metrics
	if len(names) == 0 {
		return
	}
	l := table.of(e)
	defer l.list() // without the lock
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		switch kind, key, _ := strings.Cut(name, "."); {
		case name == "cpu_utilization":
			l.addLocked(name, r.CPU, r.CPU > 0)
		case name == "mem_utilization":
			l.addLocked(name, r.Memory, r.Memory > 0)
		case name == "application_utilization":
			l.addLocked(name, r.Application, r.Application > 0)
		case kind == "utilization":
			l.addOfLocked(kind, key, r.Utilization)
		case kind == "named_metrics":
			l.addOfLocked(kind, key, r.Named)
		}
	}
}

func (l *Load) addOfLocked(kind, key string, values map[string]float64) {
	if key != "*" {
		value, ok := values[key]
		l.addLocked(kind+"."+key, value, ok)
		return
	}
	for key, value := range values {
		l.addLocked(kind+"."+key, value, true)
	}
}

func (l *Load) addLocked(name string, value float64, known bool) {
	m, ok := l.metrics[name]
	if !known || !ok && (len(l.metrics) == maxLoadNames || l.table.names.Load() >= maxAllNames) {
		return
	}
	if !ok {
		l.table.names.Add(1)
	}
	if l.metrics == nil {
		l.metrics = make(map[string]discovery.MetricLoad)
	}
	l.metrics[name] = discovery.MetricLoad{Count: m.Count + 1, Total: m.Total + value}
}

// maxLeaving bounds how many clusters that are gone are remembered for a report.
const maxLeaving = 1000

// leavingLoad is what a cluster that is gone has not told.
type leavingLoad struct {
	name, service string
	table         *loadTable
}

// serviceOf is the name of a cluster's endpoints at the control plane, "" if it is
// the cluster's.
func serviceOf(c *Cluster) string {
	if config := c.Config(); config != nil && config.EDSName != c.name {
		return config.EDSName
	}
	return ""
}

// leaveLoadLocked keeps what a cluster counted that is being given up: its calls go
// on to their end.
func (m *Manager) leaveLoadLocked(c *Cluster) {
	table := c.load.Load()
	if table == nil {
		return
	}
	if len(m.leaving) == maxLeaving { // nobody asks
		m.leaving = slices.Delete(m.leaving, 0, 1)
	}
	m.leaving = append(m.leaving, leavingLoad{name: c.name, service: serviceOf(c), table: table})
}

// Loads returns what happened since it was last called to the calls of the clusters
// that the control plane asks for and that wanted wants, and of those that are gone
// since. What is returned is not returned again.
func (m *Manager) Loads(wanted func(cluster string) bool) []discovery.ClusterLoad {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.clusters))
	gone := slices.Clone(m.leaving)
	m.mu.Unlock()
	var loads []discovery.ClusterLoad
	over := make(map[*loadTable]bool)
	for _, l := range gone {
		if !wanted(l.name) {
			continue
		}
		one, some := l.table.take()
		if some {
			one.Cluster, one.Service = l.name, l.service
			loads = append(loads, one)
		}
		running := func(l discovery.LocalityLoad) bool { return l.InProgress > 0 }
		over[l.table] = !slices.ContainsFunc(one.Localities, running)
	}
	m.mu.Lock()
	m.leaving = slices.DeleteFunc(m.leaving, func(l leavingLoad) bool { return over[l.table] })
	m.mu.Unlock()
	for _, c := range all {
		table := c.load.Load()
		if table == nil || !wanted(c.name) {
			continue
		}
		if one, some := table.take(); some {
			one.Cluster, one.Service = c.name, serviceOf(c)
			loads = append(loads, one)
		}
	}
	slices.SortFunc(loads, func(a, b discovery.ClusterLoad) int { return strings.Compare(a.Cluster, b.Cluster) })
	return loads
}

// take returns what was counted and begins anew; some is false if that is nothing.
func (t *loadTable) take() (load discovery.ClusterLoad, some bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	load.Drops, load.Dropped = t.drops, t.dropped
	t.drops, t.dropped = make(map[string]uint64), 0
	t.names.Store(0)
	localities := make(map[balancer.Locality]*discovery.LocalityLoad)
	t.loads = slices.DeleteFunc(t.loads, func(l *Load) bool {
		if one, some := l.take(); some {
			sum := localities[l.locality]
			if sum == nil {
				sum = &discovery.LocalityLoad{Locality: l.locality}
				localities[l.locality] = sum
			}
			add(sum, one)
		}
		return l.quiet()
	})
	for _, sum := range localities {
		slices.SortFunc(sum.Endpoints, func(a, b discovery.EndpointLoad) int { return strings.Compare(a.Address, b.Address) })
		load.Localities = append(load.Localities, *sum)
	}
	slices.SortFunc(load.Localities, func(a, b discovery.LocalityLoad) int {
		return strings.Compare(a.Locality.String(), b.Locality.String())
	})
	return load, load.Dropped > 0 || len(load.Localities) > 0
}

// take is that of one endpoint.
func (l *Load) take() (one discovery.EndpointLoad, some bool) {
	one = discovery.EndpointLoad{
		Address: l.address, Succeeded: l.succeeded.Swap(0), Failed: l.failed.Swap(0), InProgress: uint64(max(l.running.Load(), 0)),
	}
	if issued := l.issued.Swap(0); issued >= 0 {
		one.Issued = uint64(issued)
	} else {
		l.issued.Add(issued) // of those that are issued from now on
	}
	l.mu.Lock()
	one.Metrics, l.metrics = l.metrics, nil
	l.mu.Unlock()
	return one, one.Issued+one.Succeeded+one.Failed+one.InProgress > 0 || len(one.Metrics) > 0
}

// quiet reports whether the table can forget the endpoint until it is called again.
// Whoever counts does it before it looks at listed, or before its call does not run
// any more: nothing is counted that is not seen here, or listed again.
func (l *Load) quiet() bool {
	l.listed.Store(false)
	l.mu.Lock()
	noted := len(l.metrics)
	l.mu.Unlock()
	if l.running.Load() == 0 && l.succeeded.Load()+l.failed.Load() == 0 && l.issued.Load() == 0 && noted == 0 {
		return true
	}
	l.listed.Store(true)
	return false
}

// add adds the load of an endpoint to that of its locality.
func add(sum *discovery.LocalityLoad, one discovery.EndpointLoad) {
	sum.Issued += one.Issued
	sum.Succeeded += one.Succeeded
	sum.Failed += one.Failed
	sum.InProgress += one.InProgress
	for name, m := range one.Metrics {
		was, ok := sum.Metrics[name]
		if !ok && len(sum.Metrics) == maxLoadNames {
			continue
		}
		if sum.Metrics == nil {
			sum.Metrics = make(map[string]discovery.MetricLoad)
		}
		sum.Metrics[name] = discovery.MetricLoad{Count: was.Count + m.Count, Total: was.Total + m.Total}
	}
	sum.Endpoints = append(sum.Endpoints, one)
}

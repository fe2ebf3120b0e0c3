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

// maxLoadNames bounds the metrics of one locality, whose names come from endpoints.
const maxLoadNames = 200

// loadTable counts the calls of a cluster for the control plane. A cluster has none
// while nobody asks.
type loadTable struct {
	reports *discovery.LoadReports
	// cells is replaced as a whole when a locality is seen for the first time.
	cells atomic.Pointer[map[balancer.Locality]*Load]

	mu      sync.Mutex
	drops   map[string]uint64 // guarded by mu; since the last report
	dropped uint64            // guarded by mu; those and what limits refused
}

// Load counts the calls to one locality of a cluster. A nil one counts nothing.
type Load struct {
	issued, succeeded, failed atomic.Uint64
	running                   atomic.Int64

	mu      sync.Mutex
	metrics map[string]discovery.MetricLoad // guarded by mu; since the last report
}

// followLoad begins or ends to count, as the configuration says.
func (c *Cluster) followLoad(reports *discovery.LoadReports) {
	switch table := c.load.Load(); {
	case reports == nil:
		c.load.Store(nil)
	case table == nil || table.reports != reports:
		next := &loadTable{reports: reports, drops: make(map[string]uint64)}
		if table != nil { // what was counted counts
			next.cells.Store(table.cells.Load())
			table.mu.Lock()
			maps.Copy(next.drops, table.drops)
			next.dropped = table.dropped
			table.mu.Unlock()
		} else {
			next.cells.Store(new(map[balancer.Locality]*Load))
		}
		c.load.Store(next)
	}
}

// Issued counts a call that begins at the endpoint. Done of what it returns, which
// may be nil, ends it.
func (e *Endpoint) Issued() *Load {
	table := e.cluster.load.Load()
	if table == nil {
		return nil
	}
	l := table.cell(e.host.Locality())
	l.issued.Add(1)
	l.running.Add(1)
	return l
}

// Done counts how a call ended. It is called once.
func (l *Load) Done(o *outcome.Outcome) {
	if l == nil {
		return
	}
	l.running.Add(-1)
	if o.Verdict() == outcome.Success {
		l.succeeded.Add(1)
	} else {
		l.failed.Add(1)
	}
}

// Withdraw takes back a call that could not be connected: it goes to another
// endpoint.
func (l *Load) Withdraw() {
	if l != nil {
		l.running.Add(-1)
		l.issued.Add(^uint64(0))
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

func (t *loadTable) cell(locality balancer.Locality) *Load {
	for {
		cells := t.cells.Load()
		if l := (*cells)[locality]; l != nil {
			return l
		}
		next := maps.Clone(*cells)
		if next == nil {
			next = make(map[balancer.Locality]*Load, 1)
		}
		next[locality] = new(Load)
		t.cells.CompareAndSwap(cells, &next)
	}
}

// noteMetrics counts what an endpoint says of itself with a response.
func (e *Endpoint) noteMetrics(r *balancer.LoadReport) {
	table := e.cluster.load.Load()
	if table == nil || len(table.reports.Metrics) == 0 {
		return
	}
	l := table.cell(e.host.Locality())
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range table.reports.Metrics {
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
	if !known || !ok && len(l.metrics) == maxLoadNames {
		return
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
	load.Drops, load.Dropped = t.drops, t.dropped
	t.drops, t.dropped = make(map[string]uint64), 0
	t.mu.Unlock()
	some = load.Dropped > 0
	for locality, l := range *t.cells.Load() {
		one := discovery.LocalityLoad{
			Locality: locality, Issued: l.issued.Swap(0), Succeeded: l.succeeded.Swap(0), Failed: l.failed.Swap(0),
			InProgress: uint64(max(l.running.Load(), 0)),
		}
		l.mu.Lock()
		one.Metrics, l.metrics = l.metrics, nil
		l.mu.Unlock()
		if one.Issued+one.Succeeded+one.Failed+one.InProgress > 0 || len(one.Metrics) > 0 {
			load.Localities = append(load.Localities, one)
			some = true
		}
	}
	slices.SortFunc(load.Localities, func(a, b discovery.LocalityLoad) int {
		return strings.Compare(a.Locality.String(), b.Locality.String())
	})
	return load, some
}

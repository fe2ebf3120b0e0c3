package xds

import (
	"maps"
	"slices"
	"sync"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/internal/slim"
)

// target follows the resources of one destination, from the Listener to the
// endpoints (gRFC A74), and publishes them when they are complete.
//
// A new route table is a plan until each of its clusters either can be used or
// has a definite error; until then the old plan stays in force with everything
// it needs, and changes of its clusters are published (make before break). A
// cluster that cannot be had fails its own calls and holds nobody up; but a route that
// was answered until now forwards as before, see [target.holdLocked].
type target struct {
	name      string
	local     string // the caller's own cluster, or ""
	client    watchClient
	publisher *publisher
	notify    func(discovery.Update[*discovery.Target])

	sync.Mutex

	stopped  bool                             // guarded by Mutex
	left     bool                             // guarded by Mutex; nobody is told of it any more
	listener *resource[discovery.APIListener] // guarded by Mutex
	routes   *resource[discovery.RouteTable]  // guarded by Mutex; nil for an inline table
	clusters clusters                         // guarded by Mutex; those of current and next
	most     int                              // guarded by Mutex; how many clusters there were, see [slim.Fit]
	current  *plan                            // guarded by Mutex; in force, or nil
	next     *plan                            // guarded by Mutex; not ready yet, or nil
	// aggregated is true if any of the clusters is, or was, an aggregate.
	aggregated bool // guarded by Mutex
	// troubled are the clusters with which something is wrong, and changed those whose
	// result may not be the one that was published; anew is whether that can be any. Of
	// thousands that change one after the other not each must look at all.
	troubled map[string]struct{} // guarded by Mutex
	changed  []*cluster          // guarded by Mutex
	anew     bool                // guarded by Mutex
	// rehold is whether what is held may be something else by now.
	rehold bool      // guarded by Mutex
	others outsiders // guarded by Mutex
	// unready is the index of a cluster of next that was not ready, all before
	// it having been.
	unready int // guarded by Mutex

	last discovery.Update[*discovery.Target] // guarded by Mutex; what was published
	held error                               // what is held back, as it was logged; it belongs to the publisher
}

// plan is a listener and a route table that belong together. But for what is held it
// is immutable.
type plan struct {
	listener *discovery.APIListener
	table    *discovery.RouteTable
	// from is the resource that table came by; nil if it was inline.
	from     *resource[discovery.RouteTable]
	clusters []string
	// enforced is table with the held routes as they were, and used its clusters. They
	// are those of a plan in force.
	enforced *discovery.RouteTable
	used     []string
	held     []heldRoute
}

func newTarget(name, listener, local string, client watchClient, p *publisher, notify func(discovery.Update[*discovery.Target])) *target {
	t := &target{
		name: name, local: local, client: client, publisher: p, notify: notify, clusters: make(clusters),
		others: outsiders{home: authorityOf(listener)},
	}
	t.Lock()
	defer t.Unlock()
	t.listener = watchLocked(client, t, decode.ListenerURL, listener, outbound)
	return t
}

// leave tells nobody any more. It reports whether anything is in force.
func (t *target) leave() bool {
	t.Lock()
	defer t.Unlock()
	t.left = true
	return t.current != nil
}

// withdrawnLocked ends one that is left: who comes next has no use to go on with.
func (t *target) withdrawnLocked() bool {
	if t.left {
		t.stopLocked()
	}
	return t.left
}

// stop ends all watches.
func (t *target) stop() {
	t.Lock()
	defer t.Unlock()
	t.stopLocked()
}

func (t *target) stopLocked() {
	t.stopped = true
	t.current, t.next = nil, nil
	t.listener.leaveLocked()
	t.leaveRoutesLocked()
	t.followClustersLocked()
}

// updateLocked works out what an event means.
func (t *target) updateLocked() {
	t.planLocked()
	t.followClustersLocked()
	t.advanceLocked()
	t.reholdLocked()
	t.publisher.add(t)
}

// advanceLocked puts the next plan into force if it is ready.
func (t *target) advanceLocked() {
	if t.next == nil || !t.readyLocked() {
		return
	}
	var before *discovery.RouteTable
	if t.current != nil {
		before = t.current.enforced
	}
	t.current, t.next = t.next, nil
	t.holdLocked(t.current, before)
	t.followClustersLocked()
}

// reholdLocked puts into force what is held of the plan in force and can be used now.
func (t *target) reholdLocked() {
	t.rehold = false
	if t.current == nil || len(t.current.held) == 0 {
		return
	}
	before := t.current.enforced
	t.holdLocked(t.current, before)
	if t.current.enforced != before {
		t.followClustersLocked()
	}
}

// clusterLocked works out what an event of a cluster means. Of thousands of
// clusters that come one after the other each must cost what it is, not what all
// are.
func (t *target) clusterLocked(c *cluster) {
	config := c.config.value
	if t.aggregated || len(c.result.Leaves) > 0 || config != nil && len(config.Aggregate) > 0 {
		t.updateLocked() // others may consist of it
		return
	}
	worked, was := c.works(), c.result.Err
	c.updateLocked(t.client, t)
	if t.current != nil && len(t.current.held) > 0 && (worked != c.works() || !sameError(was, c.result.Err)) {
		t.rehold = true // which looks at all routes: not each of many that change has its own look
	}
	if c.troubled() {
		t.troubled[c.config.name] = struct{}{}
	} else {
		delete(t.troubled, c.config.name)
	}
	if !t.anew && !c.changed {
		c.changed = true
		t.changed = append(t.changed, c)
	}
	t.advanceLocked()
	if t.current != nil || c.waitingFor() != nil {
		t.publisher.add(t) // or it is on its way
	}
}

// waitsLocked is as [outsiders] has it.
func (t *target) waitsLocked(err error) bool { return t.others.waitsLocked(err, t.current != nil, t) }

// planLocked finds the newest plan. It is next unless it is in force already.
func (t *target) planLocked() {
	listener := t.listener.value
	if listener == nil {
		t.current, t.next = nil, nil
		t.leaveRoutesLocked()
		return
	}
	table := listener.Routes
	switch {
	case table != nil:
		t.leaveRoutesLocked()
	case t.routes == nil || t.routes.name != listener.RouteName:
		t.routes.leaveLocked()
		t.routes = watchLocked(t.client, t, decode.RouteURL, listener.RouteName, asIs[discovery.RouteTable])
	default:
		table = t.routes.value
	}
	switch {
	case table == nil:
		t.next = nil
		if t.current != nil && t.current.from != nil && t.current.from == t.routes {
			t.current = nil // what is in force was withdrawn
		}
	case t.current.is(listener, table):
		t.next = nil
	case !t.next.is(listener, table):
		t.next = &plan{listener: listener, table: table, from: t.routes, clusters: clustersOf(table)}
		t.unready = 0
	}
}

func (t *target) leaveRoutesLocked() {
	t.routes.leaveLocked()
	t.routes = nil
}

func (p *plan) is(listener *discovery.APIListener, table *discovery.RouteTable) bool {
	return p != nil && p.listener == listener && p.table == table
}

// clustersOf returns the clusters that a route of the table can choose, or
// sends copies to, sorted. A cluster of weight 0 is none of them (gRFC A28), and
// one that a request names must be one of them.
func clustersOf(table *discovery.RouteTable) []string {
	seen := make(map[string]struct{})
	for _, host := range table.VirtualHosts {
		for _, route := range host.Routes {
			if route.Forward == nil {
				continue
			}
			for i := range route.Forward.Clusters {
				if c := &route.Forward.Clusters[i]; c.Weight > 0 && c.Header == "" {
					seen[c.Name] = struct{}{}
				}
			}
			for i := range route.Forward.Mirrors {
				if m := &route.Forward.Mirrors[i]; m.Header == "" {
					seen[m.Cluster] = struct{}{}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// followClustersLocked follows exactly the clusters of the plans and brings
// each up to date.
func (t *target) followClustersLocked() {
	var wanted []string
	for _, p := range []*plan{t.current, t.next} {
		if p != nil {
			wanted = append(wanted, p.clusters...)
			if len(p.held) > 0 {
				wanted = append(wanted, p.used...)
			}
		}
	}
	if t.local != "" && len(wanted) > 0 {
		wanted = append(wanted, t.local)
	}
	t.others.met = false
	t.clusters.followLocked(t.client, t, wanted)
	t.others.settleLocked()
	t.clusters = slim.Fit(t.clusters, &t.most)
	t.aggregated = t.clusters.aggregatesLocked()
	t.troubled = t.clusters.troubledLocked()
	t.anew = true
}

// readyLocked reports whether next can be put into force. It begins with the
// cluster that was not ready the last time.
func (t *target) readyLocked() bool {
	names := t.next.clusters
	for range 2 { // those before it may not be ready any more
		for t.unready < len(names) {
			if !t.clusters[names[t.unready]].ready() {
				return false
			}
			t.unready++
		}
		t.unready = 0
	}
	return true
}

// deliver publishes what is in force, if that is news, and tells people what is not
// although the control plane says so.
func (t *target) deliver() {
	update, ok, held := t.news()
	if !ok {
		return
	}
	t.notify(update)
	if sameError(held, t.held) {
		return
	}
	t.held = held
	if held != nil {
		t.publisher.logger.Warn("configuration that cannot be used is held back", "target", t.name, "error", held)
	} else {
		t.publisher.logger.Info("no configuration is held back any more", "target", t.name)
	}
}

// news returns what is in force if it was not published yet, and why newer versions are
// not in force. What did not change keeps its pointer.
func (t *target) news() (update discovery.Update[*discovery.Target], ok bool, held error) {
	t.Lock()
	defer t.Unlock()
	switch {
	case t.stopped, t.left:
		return update, false, nil
	case t.current != nil:
		if t.rehold {
			t.reholdLocked()
		}
		update.Value = t.assembleLocked()
		update.Err, held = t.ambientLocked()
	default:
		update.Err = t.reasonLocked()
		if update.Err == nil {
			return update, false, nil // it is on its way
		}
	}
	if update.Value == t.last.Value && sameError(update.Err, t.last.Err) {
		return update, false, nil
	}
	t.last = update
	return update, true, held
}

// assembleLocked returns the plan in force as a Target: the one that was
// published if it is still the same.
func (t *target) assembleLocked() *discovery.Target {
	last := t.last.Value
	anew := t.anew || last == nil
	changed := t.changed
	t.changed, t.anew = nil, false
	for _, c := range changed {
		c.changed = false
		anew = anew || c.config.name == t.local // it is left out while it cannot be used
	}
	if !anew {
		return withChanged(last, changed)
	}
	assembled := &discovery.Target{
		Name:     t.name,
		Listener: t.current.listener,
		Routes:   t.current.enforced,
		Clusters: make(map[string]discovery.ClusterResult, len(t.current.used)),
	}
	t.clusters.assemble(t.current.used, assembled.Clusters)
	if c := t.clusters[t.local]; c != nil && c.told && c.result.Err == nil {
		t.clusters.assemble([]string{t.local}, assembled.Clusters) // nobody waits for it
	}
	if last != nil && last.Listener == assembled.Listener && last.Routes == assembled.Routes &&
		maps.EqualFunc(assembled.Clusters, last.Clusters, sameResult) {
		return last
	}
	return assembled
}

// withChanged returns a target with the newest results of some of the clusters, if they
// are its own: itself if nothing is new.
func withChanged(last *discovery.Target, changed []*cluster) *discovery.Target {
	next := last
	for _, c := range changed {
		was, used := last.Clusters[c.config.name]
		if !used || sameResult(was, c.result) {
			continue
		}
		if next == last {
			renewed := *last
			renewed.Clusters = maps.Clone(last.Clusters)
			next = &renewed
		}
		next.Clusters[c.config.name] = c.result
	}
	return next
}

// reasonLocked returns why nothing can be used, nil if it is on its way.
func (t *target) reasonLocked() error {
	if t.listener.value == nil {
		return unusable(t.listener.err)
	}
	if t.routes != nil && t.routes.value == nil {
		return unusable(referenced(t.routes.err))
	}
	for _, name := range t.awaitedLocked() {
		if err := t.clusters[name].waitingFor(); err != nil && name != t.local {
			return referenced(err)
		}
	}
	return nil
}

// awaitedLocked are the clusters without which nothing can be used, in order. Those
// that were found to be ready come last: of thousands without endpoints each is a reason,
// and none of them must look for the first one among all.
func (t *target) awaitedLocked() []string {
	if t.aggregated { // what it consists of is no part of the plan
		return slices.Sorted(maps.Keys(t.clusters))
	}
	return t.next.clusters[t.unready:]
}

// ambientLocked returns what is wrong although the plan is in force, and what of it
// keeps a newer version from being in force.
func (t *target) ambientLocked() (err, held error) {
	var found, back troubles
	for _, h := range t.current.held {
		found.add(h.why)
		back.add(h.why)
	}
	found.add(t.listener.err)
	if t.routes != nil {
		found.add(referenced(t.routes.err))
	}
	for _, name := range slices.Sorted(maps.Keys(t.troubled)) {
		t.clusters[name].ambient(&found)
		back.add(t.clusters[name].defect)
		if name == t.local {
			found.add(t.clusters[name].result.Err)
		}
	}
	return found.err(), back.err()
}

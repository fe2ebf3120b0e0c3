package xds

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
)

// maxAggregateDepth is how many clusters may be within each other (gRFC A37).
const maxAggregateDepth = 16

// yieldAfter is after how many of many clusters those who wait for a processor go
// first: no call takes a follower's lock, but all need a processor.
const yieldAfter = 32

// clusters are those of a follower by name: the ones it refers to, and what the
// aggregates among them consist of. They are guarded by the follower's lock.
type clusters map[string]*cluster

// followLocked follows exactly the named clusters and what they consist of, and
// brings each up to date.
func (s clusters) followLocked(client watchClient, f follower, names []string) {
	wanted := make(map[string]struct{}, len(names))
	pending := slices.Clip(names) // what is added goes elsewhere
	for i := 0; i < len(pending); i++ {
		name := pending[i]
		if _, ok := wanted[name]; ok {
			continue
		}
		wanted[name] = struct{}{}
		c := s[name]
		if c == nil {
			c = newCluster(client, f, name)
			s[name] = c
		}
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched()
		}
		// What is in force is followed until what is new can be used.
		pending = append(pending, c.result.Leaves...)
		if config := c.config.value; config != nil {
			pending = append(pending, config.Aggregate...)
		}
	}
	looked := 0
	for name, c := range s {
		if looked++; looked%yieldAfter == 0 {
			runtime.Gosched()
		}
		if _, ok := wanted[name]; ok {
			c.updateLocked(client, f)
			continue
		}
		c.leaveLocked()
		delete(s, name)
	}
	changed := false
	for _, c := range s {
		before, worked := c.result.Leaves, c.works()
		if config := c.config.value; config != nil && len(config.Aggregate) > 0 {
			s.aggregate(c, config)
		} else if len(before) > 0 && !s.hold(c) { // it was one, and is that until it is something else
			c.lose()
		}
		changed = changed || !slices.Equal(before, c.result.Leaves) || worked != c.works()
	}
	if changed { // those that were in force until now may be left, and others come to something else
		s.followLocked(client, f, names)
	}
}

// aggregatesLocked reports whether any of the clusters consists, or consisted, of
// others: then a change of one can be a change of another.
func (s clusters) aggregatesLocked() bool {
	for _, c := range s {
		if config := c.config.value; len(c.result.Leaves) > 0 || config != nil && len(config.Aggregate) > 0 {
			return true
		}
	}
	return false
}

// troubledLocked are those with which something is wrong.
func (s clusters) troubledLocked() map[string]struct{} {
	troubled := make(map[string]struct{})
	for name, c := range s {
		if c.troubled() {
			troubled[name] = struct{}{}
		}
	}
	return troubled
}

// aggregate works out what an aggregate cluster comes to. Clusters that cannot be
// used are left out; while one of them may still come, there is nothing new. A tree
// that cannot be resolved, because it is part of itself, say, replaces nothing that
// works: it is a mistake, and no word that the cluster is to serve no more.
func (s clusters) aggregate(c *cluster, config *discovery.Cluster) {
	r := resolution{clusters: s, heights: make(map[string]int)}
	_, err := r.visit(c.config.name, nil)
	switch {
	case err == nil && r.waiting:
		if c.works() && !s.hold(c) {
			c.lose()
		}
		c.pending = true
		return
	case err == nil && len(r.leaves) == 0:
		err = fmt.Errorf("none of the clusters %q can be used: %w", config.Aggregate, r.missing)
	}
	if err != nil {
		err = fmt.Errorf("aggregate cluster %q: %w", c.config.name, err)
		if s.hold(c) {
			c.defect = fmt.Errorf("%w: the version before stays in force", err)
			return
		}
		c.enforce(discovery.ClusterResult{Err: err})
		return
	}
	endpoints := c.result.Endpoints
	if endpoints == nil || c.result.Cluster != config {
		endpoints = &discovery.Assignment{Name: config.Name}
	}
	c.enforce(discovery.ClusterResult{Cluster: config, Endpoints: endpoints, Leaves: r.leaves})
}

// hold is that of the cluster. An aggregate comes to those that can still be used of
// what it came to.
func (s clusters) hold(c *cluster) bool {
	if !c.works() || !c.hold() {
		return false
	}
	if len(c.result.Leaves) == 0 {
		return true
	}
	var r resolution
	for _, leaf := range c.result.Leaves {
		switch of := s[leaf]; {
		case of == nil || !of.works():
		case len(of.result.Leaves) > 0: // it has become one itself
			for _, below := range of.result.Leaves {
				if s[below] != nil && s[below].works() {
					r.add(below)
				}
			}
		default:
			r.add(leaf)
		}
	}
	if len(r.leaves) == 0 {
		return false
	}
	c.result.Leaves = r.leaves
	return true
}

// resolution is what an aggregate cluster comes to.
type resolution struct {
	clusters clusters
	// heights are how many clusters are within each other from one on, itself
	// included, of those that were visited. Each is visited once: there are more
	// ways through a few of them than can be walked.
	heights map[string]int
	leaves  []string
	added   map[string]struct{} // leaves
	waiting bool                // for one that may come
	missing error               // why the first one is left out
}

// visit adds what a cluster comes to, and returns its height. path are those that
// it is within. A cluster that comes by twice counts where it comes first (gRFC A37).
func (r *resolution) visit(name string, path []string) (height int, err error) {
	if slices.Contains(path, name) {
		return 0, fmt.Errorf("cluster %q is part of itself: by way of %q", name, path)
	}
	height, visited := r.heights[name]
	if len(path)+max(height, 1) > maxAggregateDepth {
		return 0, fmt.Errorf("more than %d clusters are within each other: %q and further", maxAggregateDepth, path)
	}
	if visited {
		return height, nil
	}
	if config := r.clusters[name].config.value; config != nil && len(config.Aggregate) > 0 {
		path = append(slices.Clip(path), name)
		for _, child := range config.Aggregate {
			below, err := r.visit(child, path)
			if err != nil {
				return 0, err
			}
			height = max(height, below)
		}
	} else {
		r.leaf(name)
	}
	height++
	r.heights[name] = height
	return height, nil
}

// leaf adds a cluster that is no aggregate now.
func (r *resolution) leaf(name string) {
	switch c := r.clusters[name]; {
	case !c.ready():
		r.waiting = true
	case c.result.Err != nil:
		if r.missing == nil {
			r.missing = c.result.Err
		}
	case len(c.result.Leaves) > 0: // it was an aggregate, and is that until its endpoints are there
		for _, leaf := range c.result.Leaves {
			r.add(leaf)
		}
	default:
		r.add(name)
	}
}

func (r *resolution) add(leaf string) {
	if _, ok := r.added[leaf]; ok {
		return
	}
	if r.added == nil {
		r.added = make(map[string]struct{})
	}
	r.added[leaf] = struct{}{}
	r.leaves = append(r.leaves, leaf)
}

// assemble adds the results in force of the named clusters to those of a target,
// and of what they consist of.
func (s clusters) assemble(names []string, results map[string]discovery.ClusterResult) {
	for _, name := range names {
		result := s[name].result
		results[name] = result
		for _, leaf := range result.Leaves {
			results[leaf] = s[leaf].result
		}
	}
}

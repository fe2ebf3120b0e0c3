package xds

import (
	"fmt"
	"slices"

	"github.com/inboardmesh/inboard/discovery"
)

// maxAggregateDepth is how many clusters may be within each other (gRFC A37).
const maxAggregateDepth = 16

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
		// What is in force is followed until what is new can be used.
		pending = append(pending, c.result.Leaves...)
		if config := c.config.value; config != nil {
			pending = append(pending, config.Aggregate...)
		}
	}
	for name, c := range s {
		if _, ok := wanted[name]; ok {
			c.updateLocked(client, f)
			continue
		}
		c.leaveLocked()
		delete(s, name)
	}
	changed := false
	for _, c := range s {
		if config := c.config.value; config != nil && len(config.Aggregate) > 0 {
			before := c.result.Leaves
			s.aggregate(c, config)
			changed = changed || !slices.Equal(before, c.result.Leaves)
		}
	}
	if changed { // those that were in force until now may be left
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

// aggregate works out what an aggregate cluster comes to. Clusters that cannot be
// used are left out; while one of them may still come, there is nothing new.
func (s clusters) aggregate(c *cluster, config *discovery.Cluster) {
	r := resolution{clusters: s}
	err := r.visit(config.Name, nil)
	switch {
	case err == nil && r.waiting:
		c.pending = true
		return
	case err == nil && len(r.leaves) == 0:
		err = fmt.Errorf("none of the clusters %q can be used: %w", config.Aggregate, r.missing)
	}
	c.told, c.pending = true, false
	if err != nil {
		c.result = discovery.ClusterResult{Err: fmt.Errorf("aggregate cluster %q: %w", config.Name, err)}
		return
	}
	if c.result.Endpoints == nil || c.result.Cluster != config {
		c.result.Endpoints = &discovery.Assignment{Name: config.Name}
	}
	c.result = discovery.ClusterResult{Cluster: config, Endpoints: c.result.Endpoints, Leaves: r.leaves}
}

// resolution is what an aggregate cluster comes to.
type resolution struct {
	clusters clusters
	leaves   []string
	waiting  bool  // for one that may come
	missing  error // why the first one is left out
}

// visit adds what a cluster comes to. path are those that it is within. A cluster
// that comes by twice counts where it comes first.
func (r *resolution) visit(name string, path []string) error {
	if slices.Contains(path, name) {
		return fmt.Errorf("cluster %q is part of itself: by way of %q", name, path)
	}
	if len(path) == maxAggregateDepth {
		return fmt.Errorf("more than %d clusters are within each other: %q and further", maxAggregateDepth, path)
	}
	c := r.clusters[name]
	if config := c.config.value; config != nil && len(config.Aggregate) > 0 {
		path = append(slices.Clip(path), name)
		for _, child := range config.Aggregate {
			if err := r.visit(child, path); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
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
	return nil
}

func (r *resolution) add(leaf string) {
	if !slices.Contains(r.leaves, leaf) {
		r.leaves = append(r.leaves, leaf)
	}
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

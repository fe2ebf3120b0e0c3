package offline

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/explain"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/mesh"
)

// Change is one thing that would be otherwise.
type Change struct {
	// What is "verdict", "answer", "response headers", "redirects", "clusters", "mirrors", "filters", "shares", or, of
	// a cluster, "NAME: sent as", "NAME: timeouts", "NAME: retries", "NAME: endpoints",
	// "NAME: settings", "NAME: limits", "NAME: shares", "NAME: priorities" or "NAME: connection".
	What string `json:"what"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Difference is a recorded request that would be routed or answered otherwise. What may
// be a secret in it is hidden.
type Difference struct {
	ask.Recorded

	Changes []Change `json:"changes"`
}

// Diff says which requests would be routed or answered otherwise by one mesh than by
// the other. Names of routes, and which of several clusters chance would choose,
// make no difference; neither does which endpoints a cluster has, but whether it has
// any does. outside are the lines of the requests that go round both meshes: nothing is
// compared of those. The error has the line of a request that is none.
func Diff(ctx context.Context, before, after *Mesh, requests []ask.Recorded) (differences []Difference, outside []int, err error) {
	differences = []Difference{}
	ctx, release := pipeline.Keeping(ctx)
	defer release()
	for i := range requests {
		r := &requests[i]
		old, err := before.facts(ctx, &r.Request)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", r.Line, err)
		}
		now, err := after.facts(ctx, &r.Request)
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", r.Line, err)
		}
		if old.outside && now.outside {
			outside = append(outside, r.Line)
		}
		if changes := old.changes(now); len(changes) > 0 {
			shown := ask.Recorded{Request: r.Redacted(), Line: r.Line, Count: r.Count}
			differences = append(differences, Difference{Recorded: shown, Changes: changes})
		}
	}
	return differences, outside, nil
}

// facts are what is compared of an explanation, in order.
type facts struct {
	names  []string
	values map[string]string
	// outside is whether the host is none of the mesh.
	outside bool
}

func (f *facts) add(name, value string) {
	if _, ok := f.values[name]; !ok {
		f.names = append(f.names, name)
	}
	f.values[name] = value
}

// none stands for what is not there.
const none = "none"

func (f *facts) get(name string) string {
	if value, ok := f.values[name]; ok && value != "" {
		return value
	}
	return none
}

func (f *facts) changes(to *facts) []Change {
	names := slices.Clone(f.names)
	for _, name := range to.names {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var changes []Change
	for _, name := range names {
		// What is said of a cluster that only one of them uses is no news.
		cluster, _, ofCluster := strings.Cut(name, ": ")
		if ofCluster && (!f.has(cluster) || !to.has(cluster)) {
			continue
		}
		if old, now := f.get(name), to.get(name); old != now {
			changes = append(changes, Change{What: name, Old: old, New: now})
		}
	}
	return changes
}

// has reports whether there is anything about a cluster.
func (f *facts) has(cluster string) bool {
	prefix := cluster + ": "
	return slices.ContainsFunc(f.names, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// facts asks about a request: of each route and of each cluster that chance could
// choose.
func (m *Mesh) facts(ctx context.Context, req *ask.Request) (*facts, error) {
	ctx = explain.Exactly(ctx)
	f := &facts{values: make(map[string]string)}
	e, err := m.factsOf(explain.WithoutChance(ctx, -1), req, f)
	if err != nil {
		return nil, err
	}
	f.outside = e.Verdict == mesh.VerdictAroundMesh || e.Verdict == mesh.VerdictRefused
	var shares []string
	for hit := 0; ; hit++ {
		one := &facts{values: make(map[string]string)}
		share, err := m.factsOf(explain.WithoutChance(ctx, hit), req, one)
		if err != nil {
			return nil, err
		}
		if share.Route == nil || e.Route != nil && share.Route.Index == e.Route.Index {
			break // there is no such route
		}
		shares = append(shares, fractionOf(e, share.Route.Index)+": "+one.String())
	}
	f.add("shares", strings.Join(shares, "; "))
	return f, nil
}

// fractionOf is the share of the requests that a route matches which lost by chance.
func fractionOf(e *mesh.Explanation, index int) string {
	for i := range e.NotMatched {
		if miss := &e.NotMatched[i]; miss.Index == index {
			return miss.Want
		}
	}
	return "a share"
}

// String is all of them in one line.
func (f *facts) String() string {
	var parts []string
	for _, name := range f.names {
		if value := f.get(name); value != none {
			parts = append(parts, name+" "+value)
		}
	}
	return strings.Join(parts, ", ")
}

// factsOf adds what is said of a request where chance decides about clusters only.
func (m *Mesh) factsOf(ctx context.Context, req *ask.Request, f *facts) (*mesh.Explanation, error) {
	e, err := m.Explain(ctx, req)
	if err != nil {
		return nil, err
	}
	if e.Draw == nil || e.Draw.By != "random" {
		f.addCall(e)
		return e, nil
	}
	var parts []part
	for i, choice := range e.Choices {
		if choice.Weight == 0 {
			continue
		}
		one, err := m.Explain(explain.WithChoice(ctx, i), req)
		if err != nil {
			return nil, err
		}
		of := &facts{values: make(map[string]string)}
		of.addCall(one)
		parts = append(parts, part{weight: float64(choice.Weight), facts: of})
	}
	f.addParts(parts)
	return e, nil
}

// part is what is said of a share of the requests.
type part struct {
	weight float64
	facts  *facts
}

// addParts adds what is said of all shares: once what is the same for all of them, and
// else by share. What is said of a cluster is about the shares that it has.
func (f *facts) addParts(parts []part) {
	seen := make(map[string]bool)
	for _, p := range parts {
		for _, name := range p.facts.names {
			if !seen[name] {
				seen[name] = true
				f.add(name, sharesOf(parts, name))
			}
		}
	}
}

func sharesOf(parts []part, name string) string {
	weights, total := make(map[string]float64), 0.0
	for _, p := range parts {
		if cluster, _, ofCluster := strings.Cut(name, ": "); ofCluster && !p.facts.has(cluster) {
			continue
		}
		weights[p.facts.get(name)] += p.weight
		total += p.weight
	}
	var shares []string
	for value, weight := range weights {
		if len(weights) == 1 {
			return value
		}
		shares = append(shares, fmt.Sprintf("%.4g%%: %s", 100*weight/total, value))
	}
	slices.Sort(shares)
	return strings.Join(shares, "; ")
}

// addCall adds what is said of one call.
func (f *facts) addCall(e *mesh.Explanation) {
	f.add("verdict", string(e.Verdict))
	if e.Answer != nil {
		f.add("answer", e.Answer.String())
	}
	f.add("filters", filtersOf(e))
	f.add("response headers", strings.Join(e.ResponseHeaders, "; "))
	f.add("redirects", e.Redirects)
	if len(e.Choices) > 0 {
		f.add("clusters", clustersOf(e))
	}
	var copies []string
	for _, mirror := range e.Mirrors {
		copies = append(copies, fmt.Sprintf("%s %.4g%%", mirror.Cluster, mirror.Percent))
	}
	f.add("mirrors", strings.Join(copies, ", "))
	f.addCluster(e)
}

func filtersOf(e *mesh.Explanation) string {
	var effects []string
	for _, f := range e.Filters {
		if f.Enabled {
			effects = append(effects, f.Effect)
		}
	}
	return strings.Join(effects, "; ")
}

func clustersOf(e *mesh.Explanation) string {
	if e.Draw != nil && e.Draw.By != "random" { // the request decides
		for _, c := range e.Choices {
			if c.Chosen {
				return c.Cluster
			}
		}
	}
	sums := make(map[string]float64)
	for _, c := range e.Choices {
		if c.Weight > 0 {
			sums[c.Cluster] += c.Percent
		}
	}
	var shares []string
	for cluster, percent := range sums {
		shares = append(shares, fmt.Sprintf("%s %.4g%%", cluster, percent))
	}
	slices.Sort(shares)
	return strings.Join(shares, ", ")
}

// addCluster adds what is said of the chosen cluster.
func (f *facts) addCluster(e *mesh.Explanation) {
	c := e.Cluster
	if c == nil {
		return
	}
	prefix := c.Name + ": "
	if e.Sent != nil {
		f.add(prefix+"sent as", e.Sent.String())
	}
	if t := e.Timeouts; t != nil {
		f.add(prefix+"timeouts", fmt.Sprintf("call %v, attempt %v, idle attempt %v, connect %v", t.Call, t.Try, t.TryIdle, t.Connect))
	}
	f.add(prefix+"retries", "")
	if e.Retry != nil {
		f.add(prefix+"retries", e.Retry.String())
	}
	endpoints := "some"
	if !slices.ContainsFunc(c.Endpoints, func(e mesh.ExplainedEndpoint) bool { return e.Candidate }) {
		endpoints = none
	}
	f.add(prefix+"endpoints", endpoints)
	var kinds []string
	for i := range c.Endpoints {
		kinds = append(kinds, c.Endpoints[i].Security)
	}
	slices.Sort(kinds)
	security := strings.Join(slices.Compact(kinds), " or ") + " with " + strings.Join(c.Peers, " or ")
	f.addSettings(prefix, c)
	f.add(prefix+"connection", strings.Join(append([]string{c.Policy}, c.HashOf...), " of ")+", "+c.Protocol+", "+security)
}

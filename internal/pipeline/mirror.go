package pipeline

import (
	"context"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const (
	// maxMirrors bounds the copies of requests that are under way to one cluster: what
	// they cost does not depend on how slow it is, and another cluster's do not wait
	// for it.
	maxMirrors = 256
	// maxAllMirrors bounds those of one mesh, to however many clusters.
	maxAllMirrors = 4 * maxMirrors
	// mirrorTimeout bounds a copy whose route has no timeout. It is Envoy's default
	// of a route's.
	mirrorTimeout = 15 * time.Second
)

// Why a copy is not sent, as observers are told.
const (
	DropTooLarge   = "too-large"
	DropTooSlow    = "too-slow"
	DropIncomplete = "incomplete"
	DropUnsendable = "unsendable"

	dropInFlight  = "in-flight"
	dropNoCluster = "no-cluster"
	dropClosed    = "closed"
)

// Mirror is the copy of one request that goes to one cluster. It must be below
// the call's faults, so that what never reached an upstream is not copied, and
// beside its retries, so that it is sent once however many attempts there are.
//
// What happens to it never reaches the call: it has goroutines, a deadline and
// permits of its own, and neither is waited for. Exactly one of Go and Drop is
// called, on any goroutine; either returns at once.
type Mirror struct {
	// Limit is how long the copy may take once its request is complete: as long as
	// the route lets a call take, or 15 s.
	Limit time.Duration

	drawn    route.DrawnMirror
	out      *Outbound
	target   *Target
	cluster  *upstream.Cluster // nil if there is none
	decision route.Decision
	event    observe.MirrorEvent
}

// Mirrors draws the copies of a call's request, whose headers req sees as they
// are sent. It is for [Adapter.Copy]; most routes have none, which costs
// nothing.
func (c *Call) Mirrors(req *route.Request) []*Mirror {
	drawn := c.Decision.Mirrors(req)
	if drawn == nil {
		return nil
	}
	limit := c.Decision.Route.Forward.Limit(c.Observed.Protocol == observe.GRPC, c.config.Target.Listener.MaxStreamDuration)
	if limit <= 0 {
		limit = mirrorTimeout
	}
	copies := make([]*Mirror, len(drawn))
	for i := range drawn {
		copies[i] = &Mirror{
			Limit: limit, drawn: drawn[i], out: c.out, target: c.target, decision: c.Decision,
			cluster: c.config.Clusters[drawn[i].Cluster],
			event: observe.MirrorEvent{
				Protocol: c.Observed.Protocol, Target: c.Observed.Target, Route: c.Observed.Route, Cluster: drawn[i].Cluster,
			},
		}
	}
	return copies
}

// Host is the authority of the copy of a request to host.
func (m *Mirror) Host(host string) string { return m.drawn.Host(host) }

// TargetName is the name of the call's target.
func (m *Mirror) TargetName() string { return m.event.Target }

// Drop says why no copy is sent.
func (m *Mirror) Drop(reason string) {
	m.event.Dropped = reason
	m.tell()
}

// Incomplete says why a copy that is being sent is not whole; "" if it is.
func (m *Mirror) Incomplete(reason string) { m.event.Dropped = reason }

// Go sends the copy on a goroutine of its own, unless too many are under way: send
// makes a call with Run and ends it. Its context ends with the mesh.
func (m *Mirror) Go(send func(ctx context.Context)) {
	reason := dropNoCluster
	if m.cluster != nil {
		reason = m.out.mirrors.start(m.event.Cluster, send)
	}
	if reason != "" {
		m.Drop(reason)
	}
}

// Run makes c, which must be zero, the copy's call and takes it to its outcome: one
// attempt, for which nobody is asked. As after [Call.Run], a Response is still
// open, and Finish ends it.
func (m *Mirror) Run(ctx context.Context, c *Call, adapter Adapter) (o outcome.Outcome) {
	m.out.Prepare(c, m.target, adapter)
	c.mirror, c.cluster, c.Decision = m, m.cluster, m.decision
	c.policy, c.routingPriority = &noRetries, m.decision.Route.Forward.Priority
	c.sequence = c.policy.Start()
	c.now = time.Now()
	c.Observed.Start = c.now
	c.Observed.Protocol, c.Observed.Cluster = m.event.Protocol, m.event.Cluster
	c.ctx = ctx
	if deadline, ok := ctx.Deadline(); ok {
		c.Deadline = deadline
	}
	done := false
	defer func() {
		if !done { // a panic or Goexit in foreign code: nothing may stay counted
			c.Finish(outcome.Outcome{Kind: outcome.Canceled, Sent: true})
		}
	}()
	if _, dropped := m.cluster.Dropped(); dropped {
		o = outcome.Outcome{Kind: outcome.Local}
	} else {
		o = c.attempts()
	}
	done = true
	if o.Kind != outcome.Response {
		c.Finish(o)
	}
	return o
}

// ended is told of the end of the copy's call.
func (m *Mirror) ended(c *Call) {
	m.event.Outcome, m.event.Start, m.event.End = c.Observed.Outcome, c.Observed.Start, c.Observed.End
	m.event.Endpoint = c.Upstream()
	m.tell()
}

func (m *Mirror) tell() {
	if hook := m.out.hooks.Mirrored; hook != nil {
		hook(m.event)
	}
}

// mirrors owns the goroutines of copies. The zero value is ready.
type mirrors struct {
	mu      sync.Mutex
	closed  bool               // guarded by mu
	active  int                // guarded by mu
	of      map[string]int     // guarded by mu; those of each cluster that has any
	ctx     context.Context    // guarded by mu; of all of them, nil before the first
	cancel  context.CancelFunc // guarded by mu
	running sync.WaitGroup
}

// start runs send, a copy for a cluster, on a goroutine, or says why not.
func (m *mirrors) start(cluster string, send func(ctx context.Context)) (refused string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return dropClosed
	case m.active >= maxAllMirrors, m.of[cluster] >= maxMirrors:
		return dropInFlight
	}
	if m.ctx == nil {
		m.ctx, m.cancel = context.WithCancel(context.Background())
		m.of = make(map[string]int)
	}
	m.active++
	m.of[cluster]++
	ctx := m.ctx
	m.running.Go(func() { // ends with ctx at the latest; close waits for it
		defer m.ended(cluster)
		send(ctx)
	})
	return ""
}

// ended takes note of the end of a copy for a cluster.
func (m *mirrors) ended(cluster string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active--
	if m.of[cluster]--; m.of[cluster] == 0 {
		delete(m.of, cluster)
	}
}

// close ends all copies and waits for them. None starts later.
func (m *mirrors) close() {
	m.mu.Lock()
	m.closed = true
	cancel := m.cancel
	m.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	m.running.Wait()
}

package grpcmesh

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/inboardmesh/inboard/internal/upstream"
)

// policyName is the load-balancing policy of mesh channels.
const policyName = "inboard_mesh"

// The registration is the one global of the library. The builder holds no
// state: what a policy balances comes with the channel's resolver.
func init() { balancer.Register(policyBuilder{}) }

type policyBuilder struct{}

func (policyBuilder) Name() string { return policyName }

func (policyBuilder) Build(cc balancer.ClientConn, options balancer.BuildOptions) balancer.Balancer {
	p := &policy{cc: cc, conns: make(map[*upstream.Endpoint][]*subConn)}
	if _, ok := options.DialCreds.(*clientCredentials); !ok {
		p.refused = errCredentials
	}
	return p
}

var (
	errCredentials = errors.New("mesh: the channel's credentials are not the mesh's, so that nothing would be encrypted as configured: remove the option that comes after Mesh.DialOptions")
	errResolver    = errors.New("mesh: the channel's resolver is not the mesh's: remove the option WithResolvers")
)

// policy owns the sub-connections of one channel. It connects to an endpoint
// when a call is first sent there, and keeps the states itself, so that a
// change costs the same however many endpoints there are.
type policy struct {
	cc balancer.ClientConn
	// refused is why the channel must not carry calls, nil if it may.
	refused error

	mu     sync.Mutex
	conns  map[*upstream.Endpoint][]*subConn // guarded by mu; none is empty
	counts [5]int                            // guarded by mu; sub-connections by connectivity.State
	closed bool                              // guarded by mu
	lines  map[*upstream.Endpoint]*line      // guarded by mu; calls that wait for a connection
	// parting is how many connections to an endpoint were let go and are open still.
	parting map[*upstream.Endpoint]int // guarded by mu
	// waiting is how many calls are in the lines; it grows under mu.
	waiting atomic.Int64
	lookout lookout
}

var _ balancer.Balancer = (*policy)(nil)

// subConn is a sub-connection to one endpoint. Its fields are guarded by
// policy.mu unless they are atomic or never change.
type subConn struct {
	sc balancer.SubConn
	// generation is that of the cluster's connection settings.
	generation uint64
	connecting connecting
	// counted is whether it holds a permit of the cluster's connection limit: it was told
	// to connect, and that has neither failed nor has its connection been let go.
	counted bool
	state   connectivity.State
	// err is why the last connect failed. While it is set, calls go elsewhere,
	// also while connecting is tried again.
	err error
	// ended tells the balancer that connecting has come to an end; nil otherwise.
	ended func()
	// overdue fires when connecting has taken longer than the cluster allows.
	overdue *time.Timer
	// ready is when it was connected, requests how many calls were sent on it
	// since, load how many of them have not ended.
	ready    time.Time
	requests uint32
	// load is another one when the connection is lost: calls go on where they are if the
	// peer has sent the connection away, and take no room on the next one. It stays when
	// the sub-connection is retired.
	load *load
	// idle looks for a connection without calls, or without trust in its peer.
	idle *time.Timer
	// stay ends the wait for the endpoint to leave its cluster, which the channel
	// is not told of if the answer of a resolver is the reason.
	stay func() bool
	// parting is whether the endpoint had left before: it is for calls that were routed
	// there until then, and goes when they have ended.
	parting bool
	// retired is whether it takes no call any more, and goes behind those that it has.
	retired atomic.Bool
	// reporting is not guarded by policy.mu.
	reporting reporting
}

// load is the calls that are on one connection of a sub-connection.
type load struct {
	conn   *subConn
	active atomic.Int64
	// idleSince is when the last one ended, in Unix nanoseconds.
	idleSince atomic.Int64
}

// ended takes note of the end of a call that was sent on a sub-connection. There may
// be room now for one that waits.
func (p *policy) ended(l *load) {
	c := l.conn
	if l.active.Add(-1) == 0 {
		l.idleSince.Store(time.Now().UnixNano())
		if c.retired.Load() && c.load == l {
			c.sc.Shutdown()
		}
	}
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.callLocked(c.connecting.endpoint)
	}
}

// worn reports whether the connection has carried as much, or has lived as
// long, as its cluster or its certificates let it. One that is new carries a
// call in any case.
func (c *subConn) worn(cluster *upstream.Cluster) bool {
	config := cluster.Config()
	if config == nil || c.state != connectivity.Ready {
		return false
	}
	if c.requests > 0 && c.expired() {
		return true
	}
	return c.spent(config.MaxRequestsPerConnection) ||
		config.MaxConnectionDuration > 0 && time.Since(c.ready) >= config.MaxConnectionDuration
}

// madeUnder reports whether the connection is made under such security.
func (c *subConn) madeUnder(s upstream.Security) bool {
	made := c.connecting.security.Load()
	return made == nil || made.Same(s)
}

// spent reports whether the connection has carried as many calls as it may, 0 is any
// number.
func (c *subConn) spent(limit uint32) bool { return limit > 0 && c.requests >= limit }

// UpdateClientConnState lets go of the sub-connections whose endpoints left, or
// whose cluster asks for other connections now. The others report as it asks for now.
func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	target, ok := s.ResolverState.Attributes.Value(targetKey{}).(*channelTarget)
	if !ok && p.refused == nil {
		p.refused = errResolver
	}
	if p.refused != nil {
		p.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: refusal{p.refused}})
		return p.refused
	}
	current := make(map[*upstream.Endpoint]uint64)
	if config, _ := target.Watch(); config != nil {
		for _, cluster := range config.Clusters {
			generation := cluster.Generation()
			for endpoint := range cluster.Made {
				current[endpoint] = generation
			}
		}
	}
	var gone []*subConn
	var reporting []*subConn
	p.mu.Lock()
	for endpoint, conns := range p.conns {
		generation, ok := current[endpoint]
		every := reportsEvery(endpoint)
		for _, c := range slices.Clone(conns) {
			if !c.parting && (!ok || generation != c.generation) {
				p.forgetLocked(endpoint, c)
				gone = append(gone, c)
			} else if c.state == connectivity.Ready && c.reporting.every != every {
				reporting = append(reporting, c)
			}
		}
	}
	p.dissolveLocked()
	p.mu.Unlock()
	for _, c := range gone {
		c.goUnused()
	}
	for _, c := range reporting {
		c.reporting.follow(c.connecting.endpoint, c.sc)
	}
	p.publish()
	return nil
}

// forgetLocked lets go of a sub-connection: it takes no call any more. The caller calls
// goUnused, without the lock.
func (p *policy) forgetLocked(endpoint *upstream.Endpoint, c *subConn) {
	left := slices.DeleteFunc(p.conns[endpoint], func(other *subConn) bool { return other == c })
	if p.conns[endpoint] = left; len(left) == 0 {
		delete(p.conns, endpoint)
	}
	p.partLocked(endpoint, c)
	c.stay()
	p.setLocked(c, connectivity.Shutdown)
	c.retired.Store(true)
}

// goUnused closes the connection of a sub-connection that was let go, unless it has calls:
// these end where they are, and the last closes it.
func (c *subConn) goUnused() {
	if c.load.active.Load() == 0 {
		c.sc.Shutdown()
	}
}

// publish gives the channel a new picker, which wakes the calls that wait for ready
// without an endpoint.
func (p *policy) publish() {
	p.mu.Lock()
	state := connectivity.Idle
	switch {
	case p.closed:
		p.mu.Unlock()
		return
	case p.counts[connectivity.Ready] > 0:
		state = connectivity.Ready
	case p.counts[connectivity.Connecting] > 0:
		state = connectivity.Connecting
	case p.counts[connectivity.TransientFailure] > 0 && p.counts[connectivity.Idle] == 0:
		state = connectivity.TransientFailure
	}
	p.mu.Unlock()
	p.cc.UpdateState(balancer.State{ConnectivityState: state, Picker: &picker{p}})
}

// ResolverError cannot happen: the mesh's resolver reports none.
func (p *policy) ResolverError(error) {}

// UpdateSubConnState is superseded by the state listeners.
func (p *policy) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle has nothing to do: connections are made by calls.
func (p *policy) ExitIdle() {}

// Close forgets the sub-connections, which the channel shuts down.
func (p *policy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.lookout.endLocked()
	p.dissolveLocked()
	for endpoint, conns := range p.conns {
		for _, c := range slices.Clone(conns) {
			p.forgetLocked(endpoint, c)
		}
	}
}

// get returns the connection to an endpoint for a call to be sent on it, with its
// state and why the last connect failed. If it is ready, ended must be called when the
// call has ended. If there is none, or none with room, it is nil, and connecting: the call
// is to wait in line. t is the turn that it had there, nil before. A sub-connection that
// was made under other settings or roots, or is worn, goes; so does one that could not
// connect, if the call insists.
func (p *policy) get(endpoint *upstream.Endpoint, insist bool, t *turn) (l *load, state connectivity.State, failure error) {
	security := endpoint.Security()
	var stale []*subConn
	defer func() {
		for _, c := range stale {
			c.goUnused() // without the lock
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, connectivity.Shutdown, upstream.ErrClosed
	}
	for i := 0; i < len(p.conns[endpoint]); {
		switch c := p.conns[endpoint][i]; {
		case !c.madeUnder(security), c.worn(endpoint.Cluster()), insist && c.state == connectivity.TransientFailure:
			p.forgetLocked(endpoint, c)
			stale = append(stale, c)
		default:
			i++
		}
	}
	if len(stale) > 0 {
		p.callLocked(endpoint) // those in line wait for another one now; this call may fail
	}
	c, failed := p.chooseLocked(endpoint, t)
	switch {
	case failed != nil:
		p.connectLocked(endpoint, failed) // if only a limit was in the way
		return nil, failed.state, failed.err
	case c == nil:
		return nil, connectivity.Connecting, nil
	}
	l = c.take() // under the lock, so that the room is still there
	p.takenLocked(t)
	if config := endpoint.Cluster().Config(); config != nil && c.spent(config.MaxRequestsPerConnection) {
		p.forgetLocked(endpoint, c) // it goes behind this call
	}
	return l, connectivity.Ready, nil
}

// connLocked makes a sub-connection.
func (p *policy) connLocked(endpoint *upstream.Endpoint) (*subConn, error) {
	c := &subConn{generation: endpoint.Cluster().Generation(), state: connectivity.Idle}
	c.connecting.endpoint = endpoint
	c.load = &load{conn: c}
	var err error
	c.sc, err = p.cc.NewSubConn( //nolint:staticcheck // deprecated for those with several addresses
		[]resolver.Address{{
			Addr:       endpoint.Address(),
			Attributes: attributes.New(connectingKey{}, &c.connecting),
		}},
		balancer.NewSubConnOptions{StateListener: func(s balancer.SubConnState) { p.stateChanged(endpoint, c, s) }},
	)
	if err != nil {
		return nil, err
	}
	if c.parting = endpoint.Draining(); c.parting {
		c.stay = func() bool { return false }
	} else {
		c.stay = endpoint.AfterLeaving(func() { p.left(endpoint, c) })
	}
	p.conns[endpoint] = append(p.conns[endpoint], c)
	p.counts[c.state]++
	return c, nil
}

// left lets go of the sub-connection to an endpoint that has left its cluster. Calls
// that wait for it are sent elsewhere.
func (p *policy) left(endpoint *upstream.Endpoint, c *subConn) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	if slices.Contains(p.conns[endpoint], c) {
		p.forgetLocked(endpoint, c)
	}
	p.scatterLocked(endpoint) // also if it was let go meanwhile, and nobody else tells them
	p.mu.Unlock()
	c.goUnused()
	p.publish()
}

// stateChanged takes note of a sub-connection's new state, and tells the
// cluster whether its endpoint can be reached.
func (p *policy) stateChanged(endpoint *upstream.Endpoint, c *subConn, s balancer.SubConnState) {
	p.mu.Lock()
	if p.closed || c.state == connectivity.Shutdown || s.ConnectivityState == connectivity.Shutdown {
		lost := c.retired.Load() && !p.closed && s.ConnectivityState == connectivity.Idle
		p.mu.Unlock()
		if lost {
			p.publish() // a call may have been given it, and not have been sent
		}
		return
	}
	if c.parting && s.ConnectivityState == connectivity.Idle {
		p.forgetLocked(endpoint, c)
		p.scatterLocked(endpoint)
		p.mu.Unlock()
		c.goUnused() // it has ended, or its back-off has, and no call will come
		p.publish()
		return
	}
	var failed error
	var given *clientConn                            // to gRPC, which could not use it
	connecting := c.state == connectivity.Connecting // and not overdue
	p.setLocked(c, s.ConnectivityState)
	switch s.ConnectivityState {
	case connectivity.Connecting:
		c.ended = endpoint.Host().Connecting()
		c.overdue = time.AfterFunc(endpoint.ConnectTimeout(), func() { p.connectOverdue(endpoint, c) })
	case connectivity.TransientFailure:
		if c.err = s.ConnectionError; c.err == nil {
			c.err = errors.New("connection failed")
		}
		failed = c.err
		given = c.connecting.conn.Load()
		p.partLocked(endpoint, c)
	case connectivity.Idle:
		// It was connected, or its back-off has passed: connect again, so that
		// the next call does not have to wait.
		c.load = &load{conn: c}
		p.partLocked(endpoint, c)
		p.connectLocked(endpoint, c)
	case connectivity.Ready:
		endpoint.Host().Opened()
		c.err, c.ready, c.requests = nil, time.Now(), 0
		c.load.idleSince.Store(c.ready.UnixNano())
		c.idle = time.AfterFunc(min(idleTimeout(endpoint), trustCheck), func() { p.lookIdle(endpoint, c) })
	}
	p.movedLocked(endpoint)
	p.mu.Unlock()
	switch s.ConnectivityState {
	case connectivity.Ready:
		endpoint.Connected()
		c.reporting.end() // of the connection before
		c.reporting.follow(endpoint, c.sc)
	case connectivity.TransientFailure:
		if given != nil {
			_ = given.Close() // gRPC has closed what it is over, if a dialer of the application's made that
		}
		if connecting {
			endpoint.ConnectFailed(failed)
		}
	}
	p.publish()
}

// setLocked moves a sub-connection to another state.
func (p *policy) setLocked(c *subConn, state connectivity.State) {
	for _, timer := range []*time.Timer{c.overdue, c.idle} {
		if timer != nil {
			timer.Stop()
		}
	}
	c.overdue, c.idle = nil, nil
	if c.state == connectivity.Ready {
		c.connecting.endpoint.Host().Closed()
	}
	if c.ended != nil {
		c.ended()
		c.ended = nil
	}
	p.counts[c.state]--
	c.state = state
	p.counts[c.state]++
}

// connectOverdue lets the calls that wait for a connection go elsewhere: gRPC
// has one connect timeout for a channel, the mesh has one for each cluster.
func (p *policy) connectOverdue(endpoint *upstream.Endpoint, c *subConn) {
	p.mu.Lock()
	if p.closed || c.state != connectivity.Connecting {
		p.mu.Unlock()
		return
	}
	p.setLocked(c, connectivity.TransientFailure)
	err := fmt.Errorf("connect timeout of %v", endpoint.ConnectTimeout())
	c.err = err
	p.movedLocked(endpoint)
	p.mu.Unlock()
	endpoint.ConnectFailed(err)
	p.publish()
}

// idleTimeout is how long the cluster keeps a connection without calls.
func idleTimeout(endpoint *upstream.Endpoint) time.Duration {
	switch config := endpoint.Cluster().Config(); {
	case config == nil:
		return defaultIdleTimeout
	case config.IdleTimeout > 0:
		return config.IdleTimeout
	}
	return math.MaxInt64 // never
}

// trustCheck is for how long at most a connection outlives the trust in its peer while no
// call asks for it.
const trustCheck = 5 * time.Second

// lookIdle lets a connection go that had no calls for the cluster's idle timeout, or
// that the next call would let go: it was made under other settings or roots, or its
// certificates have expired. The next call makes another one.
func (p *policy) lookIdle(endpoint *upstream.Endpoint, c *subConn) {
	trusted := !endpoint.Distrusts(*c.connecting.security.Load()) && !c.expired()
	p.mu.Lock()
	if p.closed || c.state != connectivity.Ready {
		p.mu.Unlock()
		return
	}
	parted := c.parting && c.load.active.Load() == 0
	if left := c.idleLeft(endpoint); left > 0 && trusted && !parted {
		c.idle.Reset(min(left, trustCheck))
		p.mu.Unlock()
		return
	}
	p.forgetLocked(endpoint, c)
	p.movedLocked(endpoint)
	p.mu.Unlock()
	c.goUnused()
	p.publish()
}

// idleLeft is for how long the connection may go on without a call. Calls begin under
// policy.mu.
func (c *subConn) idleLeft(endpoint *upstream.Endpoint) time.Duration {
	left := idleTimeout(endpoint)
	if c.load.active.Load() == 0 {
		left -= time.Since(time.Unix(0, c.load.idleSince.Load()))
	}
	return left
}

// expired reports whether the certificates of the handshake no longer prove anything.
func (c *subConn) expired() bool {
	expires := c.connecting.expires.Load()
	return expires != 0 && time.Now().UnixNano() >= expires
}

package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// policyName is the load-balancing policy of mesh channels.
const policyName = "inboard_mesh"

// The registration is the one global of the library. The builder holds no
// state: what a policy balances comes with the channel's resolver.
func init() { balancer.Register(policyBuilder{}) }

type policyBuilder struct{}

func (policyBuilder) Name() string { return policyName }

func (policyBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &policy{cc: cc, conns: make(map[*upstream.Endpoint]*subConn)}
}

// policy owns the sub-connections of one channel. It connects to an endpoint
// when a call is first sent there, and keeps the states itself, so that a
// change costs the same however many endpoints there are.
type policy struct {
	cc balancer.ClientConn

	mu     sync.Mutex
	conns  map[*upstream.Endpoint]*subConn // guarded by mu
	counts [5]int                          // guarded by mu; sub-connections by connectivity.State
	closed bool                            // guarded by mu
}

var _ balancer.Balancer = (*policy)(nil)

// subConn is a sub-connection to one endpoint. Its fields are guarded by
// policy.mu.
type subConn struct {
	sc balancer.SubConn
	// generation is that of the cluster's connection settings, rootsKey that of
	// the roots that verified the peer.
	generation uint64
	rootsKey   string
	state      connectivity.State
	err        error
	// overdue fires when connecting has taken longer than the cluster allows.
	overdue *time.Timer
}

// UpdateClientConnState lets go of the sub-connections whose endpoints left, or
// whose cluster asks for other connections now.
func (p *policy) UpdateClientConnState(s balancer.ClientConnState) error {
	target, ok := s.ResolverState.Attributes.Value(targetKey{}).(*channelTarget)
	if !ok {
		return fmt.Errorf("mesh: policy %q works only with the mesh's resolver", policyName)
	}
	current := make(map[*upstream.Endpoint]uint64)
	if config, _ := target.Watch(); config != nil {
		for _, cluster := range config.Clusters {
			generation := cluster.Generation()
			for endpoint := range cluster.Endpoints {
				current[endpoint] = generation
			}
		}
	}
	var gone []balancer.SubConn
	p.mu.Lock()
	for endpoint, c := range p.conns {
		if generation, ok := current[endpoint]; !ok || generation != c.generation {
			gone = append(gone, p.forgetLocked(endpoint, c))
		}
	}
	p.mu.Unlock()
	for _, sc := range gone {
		sc.Shutdown() // calls on it end where they are
	}
	p.publish()
	return nil
}

func (p *policy) forgetLocked(endpoint *upstream.Endpoint, c *subConn) balancer.SubConn {
	delete(p.conns, endpoint)
	p.setLocked(c, connectivity.Shutdown, nil)
	return c.sc
}

// publish gives the channel a new picker, which wakes the calls that wait for a
// connection.
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
	for endpoint, c := range p.conns {
		p.forgetLocked(endpoint, c)
	}
}

// get returns the sub-connection to an endpoint, making it if there is none,
// with its state. One that was made under other roots is replaced.
func (p *policy) get(endpoint *upstream.Endpoint) (balancer.SubConn, connectivity.State, error) {
	rootsKey := endpoint.Cluster().RootsKey()
	var stale balancer.SubConn
	defer func() {
		if stale != nil {
			stale.Shutdown() // without the lock; calls on it end where they are
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, connectivity.Shutdown, upstream.ErrClosed
	}
	if c := p.conns[endpoint]; c != nil {
		if c.rootsKey == rootsKey {
			return c.sc, c.state, c.err
		}
		stale = p.forgetLocked(endpoint, c)
	}
	c := &subConn{generation: endpoint.Cluster().Generation(), rootsKey: rootsKey, state: connectivity.Idle}
	sc, err := p.cc.NewSubConn(
		[]resolver.Address{{
			Addr:       endpoint.Address(),
			Attributes: attributes.New(clusterKey{}, endpoint.Cluster()),
		}},
		balancer.NewSubConnOptions{StateListener: func(s balancer.SubConnState) { p.stateChanged(endpoint, c, s) }},
	)
	if err != nil {
		return nil, connectivity.TransientFailure, err
	}
	c.sc = sc
	p.conns[endpoint] = c
	p.counts[c.state]++
	return sc, c.state, nil
}

// stateChanged takes note of a sub-connection's new state, and tells the
// cluster whether its endpoint can be reached.
func (p *policy) stateChanged(endpoint *upstream.Endpoint, c *subConn, s balancer.SubConnState) {
	p.mu.Lock()
	if p.closed || c.state == connectivity.Shutdown || s.ConnectivityState == connectivity.Shutdown {
		p.mu.Unlock()
		return
	}
	p.setLocked(c, s.ConnectivityState, s.ConnectionError)
	if s.ConnectivityState == connectivity.Connecting {
		c.overdue = time.AfterFunc(connectTimeout(endpoint), func() { p.connectOverdue(endpoint, c) })
	}
	p.mu.Unlock()
	switch s.ConnectivityState {
	case connectivity.Ready:
		endpoint.Connected()
	case connectivity.TransientFailure:
		endpoint.ConnectFailed()
	case connectivity.Idle:
		// It was connected, or its back-off has passed: connect again, so that
		// the next call does not have to wait.
		c.sc.Connect()
	}
	p.publish()
}

// setLocked moves a sub-connection to another state.
func (p *policy) setLocked(c *subConn, state connectivity.State, err error) {
	if c.overdue != nil {
		c.overdue.Stop()
		c.overdue = nil
	}
	p.counts[c.state]--
	c.state, c.err = state, err
	p.counts[c.state]++
}

// connectTimeout is how long the cluster lets a connection take.
func connectTimeout(endpoint *upstream.Endpoint) time.Duration {
	if config := endpoint.Cluster().Config(); config != nil && config.ConnectTimeout > 0 {
		return config.ConnectTimeout
	}
	return defaultConnectTimeout
}

// connectOverdue lets the calls that wait for a connection go elsewhere: gRPC
// has one connect timeout for a channel, the mesh has one for each cluster.
func (p *policy) connectOverdue(endpoint *upstream.Endpoint, c *subConn) {
	p.mu.Lock()
	if p.closed || c.state != connectivity.Connecting {
		p.mu.Unlock()
		return
	}
	p.setLocked(c, connectivity.TransientFailure, fmt.Errorf("connect timeout of %v", connectTimeout(endpoint)))
	p.mu.Unlock()
	endpoint.ConnectFailed()
	p.publish()
}

// picker asks the mesh for an endpoint, once per attempt.
type picker struct{ policy *policy }

var _ balancer.Picker = (*picker)(nil)

var errOutside = errors.New("mesh: the call did not pass the mesh's interceptors: pass all of Mesh.DialOptions")

// errOver is a status, so that no call waits for what comes after it.
var errOver = status.Error(codes.Canceled, "mesh: the call has ended")

// Pick sends the attempt to the endpoint that the mesh chose. While that is
// being connected to, the call waits; when that fails, another is chosen, for
// nothing has been sent. Only when there is none left the attempt has failed.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	a := attemptOf(info.Ctx)
	if a == nil {
		return balancer.PickResult{}, errOutside
	}
	a.picking.Lock()
	defer a.picking.Unlock()
	if a.over {
		return balancer.PickResult{}, errOver
	}
	endpoint := a.pipeline.Endpoint
	if endpoint == nil {
		var err error
		if endpoint, err = a.pipeline.Pick(); err != nil {
			return balancer.PickResult{}, a.pickFailed(outcome.NoEndpoint, err)
		}
	}
	if endpoint.Draining() {
		if next, err := a.pipeline.Pick(); err == nil {
			endpoint = next
		}
	}
	var lastErr error
	for {
		sc, state, err := p.policy.get(endpoint)
		switch state {
		case connectivity.Ready:
			return balancer.PickResult{SubConn: sc}, nil
		case connectivity.Idle:
			sc.Connect()
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		case connectivity.Connecting:
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		}
		if err != nil {
			lastErr = err
		}
		if a.unreachable == nil {
			a.unreachable = make(map[*upstream.Endpoint]bool)
		}
		a.unreachable[endpoint] = true
		next, err := a.pipeline.Pick()
		if err != nil || a.unreachable[next] {
			if lastErr == nil {
				lastErr = errors.New("connection failed")
			}
			clear(a.unreachable) // a call that waits for ready starts over
			return balancer.PickResult{}, a.pickFailed(outcome.ConnectFailure, lastErr)
		}
		endpoint = next
	}
}

// attempt is one attempt of a gRPC call, carried to the picker, the stats
// handler and back in the attempt's context.
type attempt struct {
	pipeline *pipeline.Attempt
	ctx      context.Context

	// picking is held while an endpoint is picked: gRPC picks again, on the
	// goroutine that receives, when a server says that it did not process the
	// request, and the call may end at the same time.
	picking sync.Mutex
	over    bool // guarded by picking; the pipeline has ended the attempt
	// unreachable are the endpoints that this attempt could not connect to;
	// guarded by picking.
	unreachable map[*upstream.Endpoint]bool
	marks       marks
}

type attemptKey struct{}

func withAttempt(ctx context.Context, a *attempt) context.Context {
	return context.WithValue(ctx, attemptKey{}, a)
}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// end keeps gRPC from picking again. It comes before the pipeline ends the
// attempt.
func (a *attempt) end() {
	a.picking.Lock()
	defer a.picking.Unlock()
	a.over = true
}

// pickFailed remembers why the attempt was not sent. The error is no status, so
// that calls that wait for ready go on waiting.
func (a *attempt) pickFailed(kind outcome.Kind, err error) error {
	a.marks.pickFailed(kind, err)
	return err
}

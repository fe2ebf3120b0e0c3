// Package tcpmesh carries connections of protocols that the mesh does not know.
package tcpmesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// tries is how many endpoints are tried for a connection: as many as Istio's default
// for a request. Nothing is sent over one that was not made.
const tries = 3

// checkEvery is for how long at most a connection outlives the trust in its peer.
const checkEvery = 5 * time.Second

// Dialer opens connections to the targets of an Outbound. Safe for concurrent use.
type Dialer struct {
	outbound *pipeline.Outbound
	hooks    *observe.Hooks
	around   func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	open    map[*conn]struct{} // guarded by mu
	checks  bool               // guarded by mu; somebody looks after them
	closed  bool               // guarded by mu
	running sync.WaitGroup

	// life ends with Close.
	life context.Context //nolint:containedctx // it bounds what no caller's context does
	end  context.CancelFunc
}

// NewDialer returns a dialer. around opens connections to hosts that the mesh does not
// know; nil refuses them.
func NewDialer(outbound *pipeline.Outbound, hooks *observe.Hooks, around func(ctx context.Context, network, address string) (net.Conn, error)) *Dialer {
	d := &Dialer{outbound: outbound, hooks: hooks, around: around, open: make(map[*conn]struct{})}
	d.life, d.end = context.WithCancel(context.Background())
	return d
}

// Dial opens a connection to "host:port". What fails is a *meshfail.Error, unless it
// went round the mesh.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, fmt.Errorf("mesh: dial %q: network %q is not supported: use \"tcp\"", address, network)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("mesh: dial: %w", err)
	}
	target := d.outbound.Target(net.JoinHostPort(strings.ToLower(strings.TrimSuffix(host, ".")), port))
	config, err := target.Config(ctx)
	switch {
	case err == nil:
	case errors.Is(err, discovery.ErrNotFound) && d.around != nil:
		return d.dialAround(ctx, target.Name(), network, address)
	case errors.Is(err, discovery.ErrNotFound):
		return nil, &meshfail.Error{
			Kind: outcome.UnknownHost, Target: target.Name(),
			Err: fmt.Errorf("refused by the outbound policy (registry only): %w", err),
		}
	default:
		return nil, target.ConfigError(ctx, err)
	}
	source := d.outbound.Source()
	name, policies, err := clusterOf(config, source)
	if err != nil {
		return nil, &meshfail.Error{Kind: outcome.NoRoute, Target: target.Name(), Err: err}
	}
	c := &call{dialer: d, source: source, policies: policies, cluster: config.Clusters[name], failure: meshfail.Error{Target: target.Name(), Cluster: name}}
	if c.cluster == nil {
		return nil, c.fail(outcome.NoConfig, errors.New("no such cluster"))
	}
	return c.run(ctx)
}

// within returns a context that ends with the mesh, too. end must be called.
func (d *Dialer) within(ctx context.Context) (bounded context.Context, end func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(d.life, func() { cancel(upstream.ErrClosed) })
	return bounded, func() {
		stop()
		cancel(nil)
	}
}

// dialAround opens a connection to a host that the mesh does not know. It is the
// caller's alone.
func (d *Dialer) dialAround(ctx context.Context, target, network, address string) (net.Conn, error) {
	bounded, end := d.within(ctx)
	defer end()
	conn, err := d.around(bounded, network, address)
	if err != nil && d.life.Err() != nil && ctx.Err() == nil {
		return nil, &meshfail.Error{Kind: outcome.Closed, Target: target, Err: upstream.ErrClosed}
	}
	return conn, err
}

// errRequests is a destination whose routes look at requests.
var errRequests = errors.New("its routes depend on requests, of which a connection has none: call it with Transport or DialOptions, or let its port have the protocol TCP")

// clusterOf is the cluster of a destination that has one route, for everything, and by
// what that route chooses an endpoint, if its cluster does so by hash.
func clusterOf(config *pipeline.Config, source string) (string, []discovery.HashPolicy, error) {
	hosts := config.Target.Routes.VirtualHosts
	if len(hosts) != 1 || len(hosts[0].Routes) != 1 {
		return "", nil, errRequests
	}
	r := hosts[0].Routes[0]
	m := &r.Match
	if all := m.Path.Kind == discovery.PathPrefix && (m.Path.Value == "/" || m.Path.Value == ""); !all || r.Forward == nil || m.GRPC ||
		m.PerMillion != nil || len(m.Headers)+len(m.Query)+len(m.Cookies)+len(m.Metadata) > 0 {
		return "", nil, errRequests
	}
	request := route.Request{Method: "CONNECT", Scheme: "http", Host: config.Target.Name, Path: "/", Header: nothing{}, Source: source}
	decision, _ := config.Routes.Match(&request) // without one there is no cluster
	name := decision.ClusterName(&request)
	if name == "" {
		return "", nil, errRequests
	}
	return name, r.Forward.Hash, nil
}

// nothing are the headers of a connection.
type nothing struct{}

func (nothing) Get(string) string      { return "" }
func (nothing) Values(string) []string { return nil }

// call is one connection that is being made.
type call struct {
	dialer   *Dialer
	source   string // who calls
	policies []discovery.HashPolicy
	cluster  *upstream.Cluster
	failure  meshfail.Error
}

// hash finds out by what an endpoint is picked, if the cluster looks at a hash: by who
// calls, as far as a policy says so, for a connection has nothing else.
func (c *call) hash(cluster *upstream.Cluster, info *balancer.PickInfo) {
	config := cluster.Config()
	if config == nil || !config.Balancer.Policy.Hashes() {
		return
	}
	policies := config.Hash
	if policies == nil {
		policies = c.policies
	}
	info.Hash, info.Hashed, _ = route.Hash(policies, &route.Request{Header: nothing{}, Source: c.source})
}

func (c *call) fail(kind outcome.Kind, err error) error {
	failure := c.failure
	failure.Kind, failure.Err = kind, err
	return &failure
}

func (c *call) run(ctx context.Context) (net.Conn, error) {
	if err := c.cluster.Await(ctx); err != nil {
		return nil, c.fail(outcome.NoEndpoint, err)
	}
	var info balancer.PickInfo
	for {
		c.failure.Attempts++
		conn, tried, err := c.attempt(ctx, &info)
		if err == nil {
			return conn, nil
		}
		if tried == nil || c.failure.Attempts == tries || ctx.Err() != nil {
			return nil, err
		}
		info.Avoid, info.Beyond = append(info.Avoid, tried), true
	}
}

// attempt tries one endpoint: tried, unless none could be.
func (c *call) attempt(ctx context.Context, info *balancer.PickInfo) (_ net.Conn, tried *balancer.Host, err error) {
	own := *info
	cluster := c.cluster.Leaf(&own)
	if err := cluster.Err(); err != nil {
		return nil, nil, c.fail(outcome.NoConfig, err)
	}
	if category, dropped := cluster.Dropped(); dropped {
		cluster.CountDrop(category)
		return nil, nil, c.fail(outcome.Overflow, fmt.Errorf("dropped: %q", category))
	}
	a := &permits{gate: cluster.Gate(discovery.PriorityDefault)}
	result := outcome.Outcome{Kind: outcome.Canceled}
	kept := false
	defer func() { // whatever panics, but for a connection that was made
		if !kept {
			a.release(&result)
		}
	}()
	if rate := cluster.ErrorRate(); rate != nil {
		if a.errorRate, err = rate.Allow(); err != nil {
			c.overflowed(cluster, "breaker")
			return nil, nil, c.fail(outcome.Overflow, err)
		}
	}
	if a.gated = a.gate.TryConnection(); !a.gated {
		c.overflowed(cluster, "connections")
		return nil, nil, c.fail(outcome.Overflow, errors.New("circuit breaker: too many connections"))
	}
	c.hash(cluster, &own)
	endpoint, err := cluster.Pick(own)
	if err != nil {
		return nil, nil, c.fail(outcome.NoEndpoint, err)
	}
	c.failure.Endpoint = endpoint.Address()
	if a.endpoint, err = endpoint.Allow(); err != nil {
		c.overflowed(cluster, "breaker")
		return nil, endpoint.Host(), c.fail(outcome.Overflow, err)
	}
	a.host, a.load = endpoint.Host(), endpoint.Issued()
	a.host.Begin()
	bounded, end := c.dialer.within(ctx)
	defer end()
	stream, err := endpoint.Connect(bounded)
	switch {
	case err == nil:
	case c.dialer.life.Err() != nil && ctx.Err() == nil:
		result = outcome.Outcome{Kind: outcome.Closed, Err: upstream.ErrClosed}
		return nil, nil, c.fail(outcome.Closed, upstream.ErrClosed)
	case ctx.Err() != nil: // the caller's own time
		result.Err = context.Cause(ctx)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			result.Kind = outcome.Timeout
		}
		return nil, nil, c.fail(result.Kind, err)
	default:
		result.Kind, result.Err = outcome.ConnectFailure, err
		return nil, endpoint.Host(), c.fail(outcome.ConnectFailure, err)
	}
	result = outcome.Outcome{Kind: outcome.Response, Sent: true}
	endpoint.Report(&result)
	a.connected(&result)
	conn := &conn{Stream: stream, dialer: c.dialer, permits: a}
	kept = true
	conn.life.moved(1)
	if !c.dialer.add(conn) {
		return nil, nil, errors.Join(c.fail(outcome.Closed, upstream.ErrClosed), conn.Close())
	}
	conn.look()
	return conn, nil, nil
}

func (c *call) overflowed(cluster *upstream.Cluster, resource string) {
	cluster.CountDrop("")
	if hook := c.dialer.hooks.Overflowed; hook != nil {
		hook(observe.OverflowEvent{Cluster: cluster.Name(), Resource: resource})
	}
}

// permits are what a connection holds until it is closed.
type permits struct {
	gate                *breaker.Gate
	gated               bool
	errorRate, endpoint breaker.Permit // zero without one, and when it was told
	host                *balancer.Host
	load                *upstream.Load
}

// connected tells the breakers, which are about whether a connection can be made.
func (p *permits) connected(o *outcome.Outcome) {
	p.errorRate.Done(o.Verdict())
	p.endpoint.Done(o.Verdict())
	p.errorRate, p.endpoint = breaker.Permit{}, breaker.Permit{}
}

// release gives back what is held. It is called once.
func (p *permits) release(o *outcome.Outcome) {
	p.connected(o)
	if p.host != nil {
		p.load.Done(o)
		p.host.End()
	}
	if p.gated {
		p.gate.ReleaseConnection()
	}
}

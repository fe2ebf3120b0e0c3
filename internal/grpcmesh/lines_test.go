package grpcmesh

import (
	"errors"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	meshbalancer "github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// stubChannel is a channel whose sub-connections do what the test says.
type stubChannel struct {
	balancer.ClientConn

	conns []*stubConn
}

type stubConn struct {
	balancer.SubConn

	told      func(balancer.SubConnState)
	connected int
}

func (c *stubChannel) UpdateState(balancer.State) {}

func (c *stubChannel) NewSubConn(_ []resolver.Address, options balancer.NewSubConnOptions) (balancer.SubConn, error) {
	conn := &stubConn{told: options.StateListener}
	c.conns = append(c.conns, conn)
	return conn, nil
}

func (c *stubConn) Connect() { c.connected++ }

func (c *stubConn) Shutdown() {}

func (c *stubConn) become(state connectivity.State) {
	s := balancer.SubConnState{ConnectivityState: state}
	if state == connectivity.TransientFailure {
		s.ConnectionError = errors.New("nobody is there")
	}
	c.told(s)
}

// stubPolicy is a policy over a stub, and an endpoint.
func stubPolicy(t *testing.T, tls *discovery.UpstreamTLS) (*policy, *stubChannel, *upstream.Endpoint) {
	t.Helper()
	m := upstream.NewManager(upstream.Options{
		Hooks:    &observe.Hooks{},
		Identity: func(string) (meshtls.Source, error) { return meshtls.NewStatic(nil), nil },
	})
	t.Cleanup(m.Close)
	clusters := m.Hold(map[string]discovery.ClusterResult{"c": {
		Cluster: &discovery.Cluster{Name: "c", TLS: tls, Limits: [2]breaker.Limits{breaker.DefaultLimits, breaker.DefaultLimits}},
		Endpoints: &discovery.Assignment{Name: "c", Localities: []discovery.LocalityEndpoints{{
			Weight: 1, Endpoints: []meshbalancer.Endpoint{{Address: "10.0.0.1:1"}},
		}}},
	}})
	channel := &stubChannel{}
	p := &policy{cc: channel, conns: make(map[*upstream.Endpoint][]*subConn)}
	t.Cleanup(p.Close)
	for endpoint := range clusters["c"].Endpoints {
		return p, channel, endpoint
	}
	t.Fatal("no endpoint")
	return nil, nil, nil
}

func hasCome(t *turn) bool {
	select {
	case <-t.come:
		return true
	default:
		return false
	}
}

// A call that was to wait for a connection looks elsewhere if that has failed before it
// was in line: it does not wait for the back-off.
func TestACallDoesNotQueueForAConnectionThatHasFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, channel, endpoint := stubPolicy(t, nil)
		first, _ := p.queue(endpoint, false, nil)
		channel.conns[0].become(connectivity.Connecting)
		if _, state, failure := p.get(endpoint, false, nil); state != connectivity.Connecting || failure != nil {
			t.Fatalf("%v, %v", state, failure)
		}
		channel.conns[0].become(connectivity.TransientFailure)
		for _, insist := range []bool{false, true} {
			if late, _ := p.queue(endpoint, insist, nil); !hasCome(late) || late.over {
				t.Errorf("insist %v: the call waits", insist)
			}
		}
		if !hasCome(first) {
			t.Error("the call that was in line waits")
		}
		channel.conns[0].become(connectivity.Idle)
		channel.conns[0].become(connectivity.Connecting)
		if late, _ := p.queue(endpoint, false, nil); !hasCome(late) {
			t.Error("the call waits for a connection that is tried again")
		}
		insists, _ := p.queue(endpoint, true, nil)
		if hasCome(insists) {
			t.Error("the call that insists does not wait")
		}
		channel.conns[0].become(connectivity.Ready)
		if !hasCome(insists) || p.waiting.Load() != 0 {
			t.Error("the call that insists still waits")
		}
	})
}

// Those in line are not left with a connection that another call lets go, whatever becomes
// of that call.
func TestThoseInLineDoNotWaitForAConnectionThatIsLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, channel, endpoint := stubPolicy(t, nil)
		waits, _ := p.queue(endpoint, false, nil)
		channel.conns[0].become(connectivity.Connecting)
		_, _, secured := stubPolicy(t, &discovery.UpstreamTLS{RootInstance: "default"})
		other := secured.Security()
		p.conns[endpoint][0].connecting.security.Store(&other) // of the connection before
		if _, state, _ := p.get(endpoint, false, nil); state != connectivity.Connecting || hasCome(waits) {
			t.Fatalf("%v", state)
		}
		if len(channel.conns) != 2 || channel.conns[1].connected != 1 {
			t.Fatal("no connection is made for the call in line")
		}
		channel.conns[1].become(connectivity.Connecting)
		channel.conns[1].become(connectivity.Ready)
		if !hasCome(waits) {
			t.Error("the call in line waits")
		}
	})
}

// A connection that failed, and that a limit kept from being made again, is made when
// calls ask for it, though they go elsewhere.
func TestAFailedConnectionIsMadeAgainWhenTheLimitAllows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, channel, endpoint := stubPolicy(t, nil)
		_, _ = p.queue(endpoint, false, nil)
		conn := channel.conns[0]
		conn.become(connectivity.Connecting)
		conn.become(connectivity.TransientFailure)
		gate := gateOf(endpoint)
		gate.SetLimits(breaker.Limits{MaxConnections: 1})
		gate.AddConnection() // another channel's
		p.mu.Lock()
		p.parting = map[*upstream.Endpoint]int{endpoint: 1} // and one that has its last calls
		p.mu.Unlock()
		conn.become(connectivity.Idle)
		if conn.connected != 1 {
			t.Fatal("it is made in spite of the limit")
		}
		if _, _, err := p.get(endpoint, false, nil); err == nil || conn.connected != 1 {
			t.Fatalf("connected %d times, %v", conn.connected, err)
		}
		gate.ReleaseConnection()
		if _, _, err := p.get(endpoint, false, nil); err == nil || conn.connected != 2 {
			t.Errorf("connected %d times, %v; want twice, and that the call goes elsewhere", conn.connected, err)
		}
	})
}

// Those in line are told that their endpoint has left, also if the connection that hears of
// it is let go at the same time.
func TestThoseInLineAreToldOfAnEndpointThatLeavesWithItsConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, channel, endpoint := stubPolicy(t, nil)
		waits, _ := p.queue(endpoint, false, nil)
		channel.conns[0].become(connectivity.Connecting)
		c := p.conns[endpoint][0]
		p.mu.Lock()
		p.forgetLocked(endpoint, c)
		p.mu.Unlock()
		p.left(endpoint, c) // it had begun
		if !hasCome(waits) {
			t.Error("the call in line waits")
		}
	})
}

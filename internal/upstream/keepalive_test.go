package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// probedConn is a connection in memory that takes the settings of TCP.
type probedConn struct {
	net.Conn

	err error

	mu      sync.Mutex
	configs []net.KeepAliveConfig // guarded by mu
}

func (c *probedConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.configs = append(c.configs, config)
	return c.err
}

// wrappedConn is a connection around another one, as dialers of applications make
// them.
type wrappedConn struct {
	net.Conn

	inner net.Conn
}

func (c wrappedConn) NetConn() net.Conn { return c.inner }

func TestBN8_KeepAliveIsAppliedToNewConnections(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config *discovery.KeepAlive
		want   []net.KeepAliveConfig
	}{
		"none leaves a connection alone": {nil, nil},
		"an empty one leaves numbers to the dialer": {
			&discovery.KeepAlive{}, []net.KeepAliveConfig{{Enable: true, Idle: -1, Interval: -1, Count: -1}},
		},
		"a whole one": {
			&discovery.KeepAlive{Probes: 3, Time: time.Minute, Interval: 5 * time.Second},
			[]net.KeepAliveConfig{{Enable: true, Idle: time.Minute, Interval: 5 * time.Second, Count: 3}},
		},
		"off": {&discovery.KeepAlive{Off: true}, []net.KeepAliveConfig{{Idle: -1, Interval: -1, Count: -1}}},
	}
	for name, tt := range tests {
		for protocol, speak := range map[string]func(*discovery.Cluster){"HTTP/1.1": func(*discovery.Cluster) {}, "HTTP/2": speakHTTP2} {
			t.Run(name+" over "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.serve(paymentAddress, answer)
					var probed *probedConn
					w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
						conn, err := w.network.DialContext(ctx, network, address)
						probed = &probedConn{Conn: conn}
						return wrappedConn{conn, probed}, err
					}
					_, e := w.one(func(c *discovery.Cluster) {
						speak(c)
						c.KeepAlive = tt.config
					})
					get(t, e)
					if len(probed.configs) != len(tt.want) || len(tt.want) > 0 && probed.configs[0] != tt.want[0] {
						t.Errorf("got %+v, want %+v", probed.configs, tt.want)
					}
				})
			})
		}
	}
}

func TestAConnectionInMemoryHasNoKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve(paymentAddress, answer)
		_, e := w.one(func(c *discovery.Cluster) { c.KeepAlive = &discovery.KeepAlive{Probes: 3} })
		get(t, e)
		w.expectConnections(1, 0)
	})
}

func TestAConnectionThatCannotBeKeptAliveIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		server := w.serve(paymentAddress, answer)
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := w.network.DialContext(ctx, network, address)
			return &probedConn{Conn: conn, err: errors.New("invalid argument")}, err
		}
		c, e := w.one(func(c *discovery.Cluster) { c.KeepAlive = &discovery.KeepAlive{Probes: 3} })
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
		if want := "tcp keep-alive: invalid argument"; failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || failure.Err.Error() != want {
			t.Errorf("got %+v, want a connect failure: %s", failure, want)
		}
		if n := server.calls.Load(); n != 0 {
			t.Errorf("the server got %d calls", n)
		}
		w.expectConnections(0, 0)
		expectIdle(t, c, 0)
	})
}

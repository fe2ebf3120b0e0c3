package mesh_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// overflowed is a call that a limit refuses.
var overflowed = failedBy(outcome.Overflow, codes.Unavailable)

const (
	// oneCallAConnection is why the limit on connections is one on calls for
	// HTTP/1.1.
	oneCallAConnection = "HTTP/1.1 carries one call at a time on a connection; over HTTP/2 and gRPC calls share one, and wait for another if they cannot"
	// grpcReplacesWorn is when a connection is let go.
	grpcReplacesWorn = "gRPC replaces a connection that is too old when the next call comes; HTTP closes it at once, if it is idle"
)

var silent = []parityEndpoint{{}}

func parityPoolRows() []parityRow {
	call := func(t *testing.T, p *parityProbe) {
		t.Helper()
		by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
	}
	opened := func(t *testing.T, p *parityProbe, want int) {
		t.Helper()
		if got, _ := p.world.connections(p.cluster("v2")); got != want {
			t.Errorf("%d connections were opened, want %d", got, want)
		}
	}
	idle := func(t *testing.T, p *parityProbe) {
		call(t, p)
		call(t, p)
		opened(t, p, 1)
		until(t, "the idle connection is closed", func() bool {
			_, closed := p.world.connections(p.cluster("v2"))
			return closed == 1
		})
		call(t, p)
		opened(t, p, 2)
	}
	proto := func(policy, http1 string) parityRow {
		return parityRow{
			name: "connectionPool.http.h2UpgradePolicy " + policy, routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: " + policy + "}}}",
			cases: []parityCase{{
				name: "any call", want: by("v2"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					want := "HTTP/2.0"
					if p.port == "80" {
						want = http1
					}
					if r.Reply.Proto != want {
						t.Errorf("the payment got %s, want %s", r.Reply.Proto, want)
					}
				},
			}},
		}
	}
	return []parityRow{
		{
			name: "connectionPool.tcp.connectTimeout", routes: noRetries + toV1, endpoints: silent,
			rule: "trafficPolicy: {connectionPool: {tcp: {connectTimeout: 150ms}}}",
			cases: []parityCase{{
				name: "an endpoint that does not answer", want: failedBy(outcome.ConnectFailure, codes.Unavailable),
				check: func(t *testing.T, _ *parityProbe, r *parityResult) { checkTook(t, r, 150*time.Millisecond) },
			}},
		},
		{
			name: "connectionPool.tcp.maxConnections", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}",
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 1, parityCall{script: "hang"}, 1)
				r := p.call(t, parityCall{timeout: 200 * time.Millisecond})
				if p.port == "80" {
					failedBy(outcome.Timeout, codes.OK).check(t, p.parityProtocol, r)
				} else {
					by("v2").check(t, p.parityProtocol, r)
				}
				opened(t, p, 1)
				release()
			},
			why: oneCallAConnection,
		},
		{
			name: "connectionPool.http.http1MaxPendingRequests", routes: noRetries + toV1, endpoints: silent,
			rule: "trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 1}}}",
			run: func(t *testing.T, p *parityProbe) {
				giveUp, results := make(chan struct{}), make(chan *parityResult, 2)
				for range 2 {
					go func() { results <- p.call(t, parityCall{giveUp: giveUp}) }()
				}
				overflowed.check(t, p.parityProtocol, <-results)
				close(giveUp)
				failedBy(outcome.Canceled, codes.Canceled).check(t, p.parityProtocol, <-results)
			},
		},
		{
			name: "what is left of the limits of a connectionPool", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {http2MaxRequests: 3, maxRetries: 7}}}",
			run: func(t *testing.T, p *parityProbe) {
				left := func(requests uint32) {
					t.Helper()
					p.world.mu.Lock()
					c := p.world.capacity[p.cluster("v2")]
					p.world.mu.Unlock()
					if c == nil {
						t.Fatalf("%s is not tracked", p.cluster("v2"))
					}
					want := observe.Remaining{Requests: requests, Retries: 7}
					until(t, fmt.Sprintf("%+v are left", want), func() bool {
						got := c.Remaining()
						got.Connections, got.Pending = 0, 0 // they have no limit
						return got == want
					})
				}
				release := p.hold(t, 2, parityCall{script: "hang"}, 1)
				left(1)
				release()
				left(3)
			},
		},
		{
			name: "connectionPool.http.maxRequestsPerConnection", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 2}}}",
			run: func(t *testing.T, p *parityProbe) {
				for i := range 5 {
					call(t, p)
					opened(t, p, i/2+1)
				}
			},
		},
		{
			name: "connectionPool.http.idleTimeout", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {idleTimeout: 500ms}, tcp: {idleTimeout: 1h}}}", run: idle,
		},
		{
			name: "connectionPool.tcp.idleTimeout", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {tcp: {idleTimeout: 500ms}}}", run: idle,
		},
		{
			name: "connectionPool.tcp.maxConnectionDuration", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {tcp: {maxConnectionDuration: 200ms}}}",
			run: func(t *testing.T, p *parityProbe) {
				start := time.Now()
				until(t, "there is a new connection", func() bool {
					call(t, p)
					n, _ := p.world.connections(p.cluster("v2"))
					return n == 2
				})
				if lived := time.Since(start); lived < 200*time.Millisecond {
					t.Errorf("the first connection was replaced after %v", lived)
				}
			},
			why: grpcReplacesWorn,
		},
		{
			name: "connectionPool.tcp.tcpKeepalive", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 71s, interval: 9s}}}}",
			run: func(t *testing.T, p *parityProbe) {
				config := net.KeepAliveConfig{Enable: true, Idle: 71 * time.Second, Interval: 9 * time.Second, Count: 3}
				before := p.world.keptAlive(config)
				call(t, p)
				if p.world.keptAlive(config) == before {
					t.Error("the connection of the call is not kept alive")
				}
			},
		},
		{
			name: "connectionPool.http.useClientProtocol", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}",
			cases: []parityCase{{
				name: "any call", want: by("v2"),
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					// An HTTP request is one of HTTP/1.1 until a handler passes one on
					// that came over HTTP/2.
					want := "HTTP/2.0"
					if p.name != "gRPC" {
						want = "HTTP/1.1"
					}
					if r.Reply.Proto != want {
						t.Errorf("the payment got %s, want %s", r.Reply.Proto, want)
					}
				},
			}},
		},
		proto("UPGRADE", "HTTP/2.0"),
		proto("DO_NOT_UPGRADE", "HTTP/1.1"),
		proto("DEFAULT", "HTTP/1.1"),
	}
}

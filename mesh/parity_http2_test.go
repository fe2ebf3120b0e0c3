package mesh_test

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// http1HasNoPings is why only HTTP/2 finds out.
const http1HasNoPings = "HTTP/1.1 has no PING frames: the call that meets a silent peer ends with its timeout"

func parityHTTP2Rows() []parityRow {
	opened := func(t *testing.T, p *parityProbe, want int) {
		t.Helper()
		if got, _ := p.world.connections(p.cluster("v2")); got != want {
			t.Errorf("%d connections were opened, want %d", got, want)
		}
	}
	// marked tells the connections of a port from all others.
	marked := map[string]net.KeepAliveConfig{
		"82":   {Enable: true, Idle: 74 * time.Second, Interval: 9 * time.Second, Count: 3},
		"9090": {Enable: true, Idle: 75 * time.Second, Interval: 9 * time.Second, Count: 3},
	}
	const asked = "http: {http2KeepAlive: {interval: 100ms, timeout: 200ms}}"
	return []parityRow{
		{
			name: "connectionPool.http.maxConcurrentStreams", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 1}}}",
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 3, parityCall{script: "hang"}, 1)
				opened(t, p, 3)
				release()
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
			},
		},
		{
			name: "connectionPool.http.maxConcurrentStreams and tcp.maxConnections", routes: noRetries + toV2,
			rule: "trafficPolicy: {connectionPool: {http: {maxConcurrentStreams: 1}, tcp: {maxConnections: 1}}}",
			run: func(t *testing.T, p *parityProbe) {
				release := p.hold(t, 1, parityCall{script: "hang"}, 1)
				failedBy(outcome.Timeout, codes.DeadlineExceeded).check(t, p.parityProtocol,
					p.call(t, parityCall{timeout: 200 * time.Millisecond}))
				opened(t, p, 1)
				waiting := make(chan *parityResult, 1)
				go func() { waiting <- p.call(t, parityCall{}) }()
				release()
				by("v2").check(t, p.parityProtocol, <-waiting)
			},
		},
		{
			name: "connectionPool.http.http2KeepAlive, by port", routes: noRetries + toV2,
			rule: "trafficPolicy:\n  portLevelSettings:\n" +
				"  - {port: {number: 82}, connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 74s, interval: 9s}}, " + asked + "}}\n" +
				"  - {port: {number: 9090}, connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 75s, interval: 9s}}, " + asked + "}}",
			run: func(t *testing.T, p *parityProbe) {
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
				if p.port == "80" {
					return
				}
				opened(t, p, 1)
				p.world.silence(marked[p.port])
				until(t, "the silent connection is closed", func() bool {
					_, closed := p.world.connections(p.cluster("v2"))
					return closed == 1
				})
				by("v2").check(t, p.parityProtocol, p.call(t, parityCall{}))
				opened(t, p, 2)
			},
			why: http1HasNoPings,
		},
	}
}

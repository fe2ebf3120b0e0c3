package meshotel

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

func TestMetricsOfOutboundCalls(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	f.attempt(ctx, call, answered(503))
	f.attempt(ctx, call, answered(200))
	f.end(ctx, call, answered(200))

	rpc := httpCall()
	rpc.Protocol, rpc.Method, rpc.Route = observe.GRPC, "/shop.Payment/Charge", ""
	ctx = f.begin(context.Background(), rpc)
	f.attempt(ctx, rpc, outcome.Outcome{Kind: outcome.PerTryTimeout, GRPC: true, Code: 4})
	f.end(ctx, rpc, outcome.Outcome{Kind: outcome.PerTryTimeout, GRPC: true, Code: 4})

	raw := &observe.Call{Direction: observe.Outbound, Protocol: observe.TCP, Host: "db:5432", Target: "db:5432"}
	ctx = f.begin(context.Background(), raw)
	f.end(ctx, raw, outcome.Outcome{})

	direct := &observe.Call{Direction: observe.Outbound, Protocol: observe.HTTP, Method: "GET", Scheme: "https", Host: "example.org"}
	ctx = f.begin(context.Background(), direct)
	f.end(ctx, direct, outcome.Outcome{Kind: outcome.Canceled, Err: context.Canceled})

	const server = "server.address=payment.shop.svc.cluster.local,server.port=8080"
	want := map[string]int64{
		"http.client.request.duration{http.request.method=POST,http.response.status_code=200,inboard.cluster=payment-v2," +
			"inboard.route=canary," + server + "}": 1,
		"http.client.request.duration{error.type=canceled,http.request.method=GET,server.address=_OTHER}": 1,
		"rpc.client.call.duration{error.type=per-try-timeout,inboard.cluster=payment-v2," +
			"rpc.method=shop.Payment/Charge," +
			"rpc.response.status_code=DEADLINE_EXCEEDED,rpc.system.name=grpc," + server + "}": 1,
		"inboard.tcp.client.session.duration{network.transport=tcp,server.address=db,server.port=5432}":                                                        1,
		"http.client.active_requests{inboard.cluster=payment-v2," + server + "}":                                                                               0,
		"inboard.rpc.client.active_requests{inboard.cluster=payment-v2,rpc.system.name=grpc," + server + "}":                                                   0,
		"inboard.call.attempts{inboard.cluster=payment-v2,inboard.outcome=response,inboard.protocol=http,inboard.resend=false,inboard.verdict=failure}":        1,
		"inboard.call.attempts{inboard.cluster=payment-v2,inboard.outcome=response,inboard.protocol=http,inboard.resend=true,inboard.verdict=success}":         1,
		"inboard.call.attempts{inboard.cluster=payment-v2,inboard.outcome=per-try-timeout,inboard.protocol=grpc,inboard.resend=false,inboard.verdict=failure}": 1,
	}
	if diff := cmp.Diff(want, f.collect(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestHedgesAreMarked(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.AlwaysSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	for number := 1; number <= 2; number++ {
		a := &observe.Attempt{Call: call, Number: number, Hedge: number > 1, Cluster: call.Cluster}
		aCtx := f.hooks.AttemptStarted(ctx, a)
		a.Outcome = answered(200)
		f.hooks.AttemptEnded(aCtx, a)
	}
	f.end(ctx, call, answered(200))
	got := f.collect(t)
	const labels = "inboard.outcome=response,inboard.protocol=http,"
	for series, want := range map[string]int64{
		"inboard.call.attempts{inboard.cluster=payment-v2," + labels + "inboard.resend=false,inboard.verdict=success}":                   1,
		"inboard.call.attempts{inboard.cluster=payment-v2,inboard.hedge=true," + labels + "inboard.resend=true,inboard.verdict=success}": 1,
	} {
		if got[series] != want {
			t.Errorf("%s is %d, want %d, of %v", series, got[series], want, got)
		}
	}
}

func TestDurationIsThatOfTheCall(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	f.end(ctx, call, answered(200))
	if got := f.sum(t, "http.client.request.duration"); got != 0.04 {
		t.Errorf("recorded %v s, want 0.04", got)
	}
	// A clock that was set back does not spoil the sum.
	call = httpCall()
	ctx = f.begin(context.Background(), call)
	call.Outcome, call.End = answered(200), start.Add(-time.Hour)
	f.hooks.CallEnded(ctx, call)
	if got := f.sum(t, "http.client.request.duration"); got != 0.04 {
		t.Errorf("recorded %v s after a negative duration, want 0.04", got)
	}
}

func TestOpenRequestsAreCountedWhileTheyAreOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	const (
		served = "http.server.active_requests{http.request.method=GET,url.scheme=http}"
		sent   = "http.client.active_requests{inboard.cluster=payment-v2,server.address=payment.shop.svc.cluster.local,server.port=8080}"
	)
	in := &observe.Call{Direction: observe.Inbound, Protocol: observe.HTTP, Method: "GET", Scheme: "http"}
	inCtx := f.begin(context.Background(), in)
	out := httpCall()
	outCtx := f.begin(inCtx, out)
	a := &observe.Attempt{Call: out, Number: 1, Cluster: out.Cluster}
	aCtx := f.hooks.AttemptStarted(outCtx, a)
	if got := f.collect(t); got[served] != 1 || got[sent] != 1 {
		t.Errorf("while open: %v", got)
	}
	f.hooks.AttemptEnded(aCtx, a)
	f.end(outCtx, out, answered(200))
	f.end(inCtx, in, answered(200))
	if got := f.collect(t); got[served] != 0 || got[sent] != 0 {
		t.Errorf("afterwards: %v", got)
	}
}

func TestMetricsOfInboundGRPCNameOnlyMethodsThatExist(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	serve := func(method string, o outcome.Outcome) {
		call := &observe.Call{Direction: observe.Inbound, Protocol: observe.GRPC, Method: method}
		ctx := f.begin(context.Background(), call)
		f.end(ctx, call, o)
	}
	serve("/s/Charge", outcome.Outcome{GRPC: true, Code: grpcPermissionDenied})
	serve("/s/Charge", outcome.Outcome{GRPC: true})
	serve("/s/Charge", outcome.Outcome{GRPC: true, Code: grpcPermissionDenied})
	serve("/s/Watch", outcome.Outcome{Kind: outcome.Canceled, GRPC: true, Code: 1})
	serve("/junk", outcome.Outcome{GRPC: true, Code: grpcUnimplemented})
	serve("/fault", outcome.Outcome{Kind: outcome.Local, GRPC: true, Code: 14})

	const name = "rpc.server.call.duration"
	want := map[string]int64{
		name + "{rpc.method=_OTHER,rpc.response.status_code=PERMISSION_DENIED,rpc.system.name=grpc}":                      1,
		name + "{rpc.method=s/Charge,rpc.response.status_code=OK,rpc.system.name=grpc}":                                   1,
		name + "{rpc.method=s/Charge,rpc.response.status_code=PERMISSION_DENIED,rpc.system.name=grpc}":                    1,
		name + "{error.type=canceled,rpc.method=s/Watch,rpc.response.status_code=CANCELLED,rpc.system.name=grpc}":         1,
		name + "{error.type=UNIMPLEMENTED,rpc.method=_OTHER,rpc.response.status_code=UNIMPLEMENTED,rpc.system.name=grpc}": 1,
		name + "{error.type=UNAVAILABLE,rpc.method=_OTHER,rpc.response.status_code=UNAVAILABLE,rpc.system.name=grpc}":     1,
		"inboard.rpc.server.active_requests{rpc.system.name=grpc}":                                                        0,
	}
	if diff := cmp.Diff(want, f.collect(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// 100,000 hostile values of everything that comes from the wire.
func TestV56_HostileValuesDoNotMultiplySeries(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	for i := range 100_000 {
		junk := fmt.Sprintf("junk-%d", i)
		call := &observe.Call{
			Direction: observe.Inbound, Protocol: observe.Protocol(i % 3), Method: "/" + junk, Host: junk, Path: "/" + junk,
			Scheme: junk, PeerAddress: junk, PeerID: junk, Headers: headers{},
		}
		ctx := f.begin(context.Background(), call)
		o := outcome.Outcome{GRPC: call.Protocol == observe.GRPC, Code: uint32(i), Status: i}
		f.end(ctx, call, o)

		out := httpCall()
		out.Host, out.Path, out.Method, out.Scheme = junk, junk, junk, junk
		ctx = f.begin(context.Background(), out)
		f.attempt(ctx, out, answered(i))
		f.end(ctx, out, answered(i))

		f.hooks.ConnOpened(observe.ConnEvent{Cluster: "c", Endpoint: junk, Protocol: junk, PeerID: junk})
		f.hooks.HandshakeFailed(observe.HandshakeEvent{Listener: "l", PeerAddress: junk, Err: errors.New(junk)})
		f.hooks.ResourceRejected(observe.ResourceEvent{Server: "s", Type: "Cluster", Name: junk, Version: junk, Err: errors.New(junk)})
	}
	got := f.collect(t)
	if len(got) > defaultMaxSeries {
		t.Errorf("%d series, want at most %d", len(got), defaultMaxSeries)
	}
	for name := range got {
		// Streams that a caller gives up could name methods, up to a limit;
		// nothing else may.
		if strings.Contains(name, "junk") && !strings.Contains(name, "rpc.method=junk") {
			t.Fatalf("series %s has a value from the wire", name)
		}
	}
	if got["inboard.xds.resources.rejected{inboard.xds.resource.type=Cluster,inboard.xds.server=s}"] != 100_000 {
		t.Error("rejections were not counted in one series")
	}
}

func TestSeriesPastTheLimitAreCountedTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample(), WithMaxSeries(10))
	for i := range 1000 {
		call := httpCall()
		call.Cluster = fmt.Sprintf("cluster-%d", i)
		ctx := f.begin(context.Background(), call)
		f.attempt(ctx, call, answered(200))
		f.end(ctx, call, answered(200))
		f.hooks.Overflowed(observe.OverflowEvent{Cluster: call.Cluster, Resource: "requests"})
		f.hooks.BreakerChanged(observe.BreakerEvent{Cluster: call.Cluster, To: "open"})
	}
	got := f.collect(t)
	sums := make(map[string]int64)
	for name, value := range got {
		metric, _, _ := strings.Cut(name, "{")
		sums[metric] += value
	}
	for _, name := range []string{"http.client.request.duration", "inboard.call.attempts", "inboard.overflow"} {
		if sums[name] != 1000 {
			t.Errorf("%s adds up to %d, want 1000", name, sums[name])
		}
		if got[name+"{otel.metric.overflow=true}"] == 0 {
			t.Errorf("%s has nothing in the overflow set", name)
		}
	}
	if _, ok := got["inboard.breaker.state{otel.metric.overflow=true}"]; ok {
		t.Error("states of different breakers were mixed in the overflow set")
	}
	// Ten of the limit, and at most one overflow set per instrument.
	if limit := 10 + 8; len(got) > limit {
		t.Errorf("%d series, want at most %d", len(got), limit)
	}
}

func TestMetricsOfEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	h := f.hooks
	failed := errors.New("failed")
	expiry := time.Unix(1_800_000_000, 0)

	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", From: "closed", To: "open"})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", From: "open", To: "half-open"})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "b", From: "half-open", To: "closed"})
	for _, address := range []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"} {
		h.BreakerChanged(observe.BreakerEvent{Cluster: "a", Endpoint: address, From: "closed", To: "open"})
	}
	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", Endpoint: "10.0.0.1:80", From: "open", To: "half-open"})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", Endpoint: "10.0.0.1:80", From: "half-open", To: "open"})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", Endpoint: "10.0.0.2:80", From: "open", To: "half-open"})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "a", Endpoint: "10.0.0.2:80", From: "half-open", To: "closed"})
	h.EndpointEjected(observe.EjectionEvent{Cluster: "a", Endpoint: "10.0.0.1:80", Reason: "consecutive-5xx"})
	h.EndpointEjected(observe.EjectionEvent{Cluster: "a", Endpoint: "10.0.0.2:80", Reason: "success-rate"})
	h.EndpointReturned(observe.EjectionEvent{Cluster: "a", Endpoint: "10.0.0.1:80", Reason: "consecutive-5xx"})
	capacity := &observe.Capacity{Cluster: "a", Priority: "high", Remaining: func() observe.Remaining {
		return observe.Remaining{Connections: 1, Pending: 2, Requests: 3, Retries: 4}
	}}
	h.CapacityTracked(capacity)
	gone := &observe.Capacity{Cluster: "b", Priority: "high", Remaining: capacity.Remaining}
	h.CapacityTracked(gone)
	h.CapacityUntracked(gone)
	h.HealthChecked(observe.HealthCheck{Cluster: "a", Endpoint: "10.0.0.1:80", Result: "unreachable", Err: failed})
	h.HealthChecked(observe.HealthCheck{Cluster: "a", Endpoint: "10.0.0.2:80", Result: "unreachable", Err: failed})
	h.HealthChanged(observe.HealthEvent{Cluster: "a", Endpoint: "10.0.0.1:80"})
	h.HealthChanged(observe.HealthEvent{Cluster: "a", Endpoint: "10.0.0.2:80"})
	h.HealthChanged(observe.HealthEvent{Cluster: "a", Endpoint: "10.0.0.1:80", Healthy: true})
	h.Overflowed(observe.OverflowEvent{Cluster: "a", Resource: "pending"})
	h.Mirrored(observe.MirrorEvent{Cluster: "a", Outcome: answered(500)})
	h.Mirrored(observe.MirrorEvent{Cluster: "a", Dropped: "too-large"})
	h.Mirrored(observe.MirrorEvent{Cluster: "made up", Dropped: "no-cluster"})
	h.KeysFetched(observe.KeysEvent{Cluster: "a", Host: "keys", Keys: 1})
	h.KeysFetched(observe.KeysEvent{Cluster: "a", Host: "keys", Err: errors.New("away"), Reason: "timeout"})
	h.NameResolved(observe.ResolveEvent{Cluster: "a", Host: "bank.example", Addresses: 2})
	h.NameResolved(observe.ResolveEvent{Cluster: "a", Host: "bank.example", Err: failed})
	h.NameResolved(observe.ResolveEvent{Cluster: "a", Host: "other.example", Err: failed})
	h.AuthorizationChecked(observe.CheckEvent{Cluster: "a", Result: "denied"})
	h.AuthorizationChecked(observe.CheckEvent{Cluster: "a", Result: "error", Err: errors.New("away"), Reason: "unreachable"})
	h.AuthorizationChecked(observe.CheckEvent{Cluster: "a", Result: "error", Err: errors.New("away"), Reason: "status", Allowed: true})
	h.Authorized(observe.AuthorizationEvent{Listener: "l", Policy: "p", Path: "/secret"})
	h.Authorized(observe.AuthorizationEvent{Listener: "l", Shadow: true})
	h.Authorized(observe.AuthorizationEvent{Listener: "l", Shadow: true, Allowed: true})
	h.Authorized(observe.AuthorizationEvent{Listener: "l", Logged: true, Allowed: true})
	h.Authorized(observe.AuthorizationEvent{Listener: "l", Asked: true, Allowed: true})
	h.Drained(observe.DrainReport{Finished: 5, Late: 2, Cut: 1, Closed: 3, Idle: 4, ConnectionsCut: 6, Refused: 7})
	opened := observe.ConnEvent{Direction: observe.Outbound, Cluster: "a", Protocol: "h2", TLS: true}
	h.ConnOpened(opened)
	h.ConnOpened(opened)
	closed := opened
	closed.Err = failed
	h.ConnClosed(closed)
	h.ConnOpened(observe.ConnEvent{Direction: observe.Outbound, Cluster: "a", Err: failed})
	h.ConnOpened(observe.ConnEvent{Direction: observe.Inbound, Protocol: "spdy/3"})
	h.StreamChanged(observe.StreamEvent{Server: "up", Connected: true})
	h.StreamChanged(observe.StreamEvent{Server: "down", Connected: true})
	h.StreamChanged(observe.StreamEvent{Server: "down", Err: failed})
	h.ResourceAccepted(observe.ResourceEvent{Server: "up", Type: "Listener", Name: "x"})
	h.ResourceRejected(observe.ResourceEvent{Server: "up", Type: "Cluster", Name: "y", Err: failed})
	h.CertificateChanged(observe.CertificateEvent{Source: "default", NotAfter: expiry})
	h.CertificateChanged(observe.CertificateEvent{Source: "default", Err: failed})
	h.HandshakeFailed(observe.HandshakeEvent{Listener: "0.0.0.0:8080", PeerAddress: "10.0.0.9:1", Err: failed})

	want := map[string]int64{
		"inboard.breaker.state{inboard.cluster=a}":                                                                        breakerHalfOpen,
		"inboard.breaker.state{inboard.cluster=b}":                                                                        breakerClosed,
		"inboard.breaker.transitions{inboard.breaker.scope=cluster,inboard.breaker.state=open,inboard.cluster=a}":         1,
		"inboard.breaker.transitions{inboard.breaker.scope=cluster,inboard.breaker.state=half-open,inboard.cluster=a}":    1,
		"inboard.breaker.transitions{inboard.breaker.scope=cluster,inboard.breaker.state=closed,inboard.cluster=b}":       1,
		"inboard.breaker.transitions{inboard.breaker.scope=endpoint,inboard.breaker.state=open,inboard.cluster=a}":        4,
		"inboard.breaker.transitions{inboard.breaker.scope=endpoint,inboard.breaker.state=half-open,inboard.cluster=a}":   2,
		"inboard.breaker.transitions{inboard.breaker.scope=endpoint,inboard.breaker.state=closed,inboard.cluster=a}":      1,
		"inboard.endpoint.tripped{inboard.cluster=a}":                                                                     2,
		"inboard.endpoint.ejected{inboard.cluster=a}":                                                                     1,
		"inboard.endpoint.ejections{inboard.cluster=a,inboard.ejection.reason=consecutive-5xx}":                           1,
		"inboard.endpoint.ejections{inboard.cluster=a,inboard.ejection.reason=success-rate}":                              1,
		"inboard.endpoint.checks{inboard.check.result=unreachable,inboard.cluster=a}":                                     2,
		"inboard.cluster.remaining{inboard.cluster=a,inboard.resource=connections,inboard.routing.priority=high}":         1,
		"inboard.cluster.remaining{inboard.cluster=a,inboard.resource=pending,inboard.routing.priority=high}":             2,
		"inboard.cluster.remaining{inboard.cluster=a,inboard.resource=requests,inboard.routing.priority=high}":            3,
		"inboard.cluster.remaining{inboard.cluster=a,inboard.resource=retries,inboard.routing.priority=high}":             4,
		"inboard.endpoint.unhealthy{inboard.cluster=a}":                                                                   1,
		"inboard.overflow{inboard.cluster=a,inboard.resource=pending}":                                                    1,
		"inboard.jwks.fetches{inboard.cluster=a,inboard.outcome=ok}":                                                      1,
		"inboard.jwks.fetches{inboard.cluster=a,inboard.failure.reason=timeout,inboard.outcome=error}":                    1,
		"inboard.dns.lookups{inboard.cluster=a,inboard.outcome=ok}":                                                       1,
		"inboard.dns.lookups{inboard.cluster=a,inboard.outcome=error}":                                                    2,
		"inboard.authorization.checks{inboard.cluster=a,inboard.outcome=denied}":                                          1,
		"inboard.authorization.checks{inboard.cluster=a,inboard.failure.reason=unreachable,inboard.outcome=error-denied}": 1,
		"inboard.authorization.checks{inboard.cluster=a,inboard.failure.reason=status,inboard.outcome=error-allowed}":     1,
		"inboard.authorization.decisions{inboard.listener=l,inboard.outcome=denied}":                                      1,
		"inboard.authorization.decisions{inboard.listener=l,inboard.outcome=asked}":                                       1,
		"inboard.authorization.decisions{inboard.listener=l,inboard.outcome=shadow-denied}":                               1,
		"inboard.authorization.decisions{inboard.listener=l,inboard.outcome=shadow-allowed}":                              1,
		"inboard.authorization.decisions{inboard.listener=l,inboard.outcome=logged}":                                      1,
		"inboard.mirrored{inboard.cluster=a,inboard.outcome=response}":                                                    1,
		"inboard.mirrored{inboard.cluster=a,inboard.outcome=dropped-too-large}":                                           1,
		"inboard.mirrored{inboard.outcome=dropped-no-cluster}":                                                            1,
		"inboard.connection.failures{inboard.cluster=a,inboard.direction=outbound}":                                       1,
		"inboard.xds.stream.connected{inboard.xds.server=up}":                                                             1,
		"inboard.xds.stream.connected{inboard.xds.server=down}":                                                           0,
		"inboard.xds.resources.accepted{inboard.xds.resource.type=Listener,inboard.xds.server=up}":                        1,
		"inboard.xds.resources.rejected{inboard.xds.resource.type=Cluster,inboard.xds.server=up}":                         1,
		"inboard.certificate.expiry{inboard.certificate.source=default}":                                                  expiry.Unix(),
		"inboard.certificate.failures{inboard.certificate.source=default}":                                                1,
		"inboard.handshake.failures{inboard.listener=0.0.0.0:8080}":                                                       1,
		"inboard.drain.requests{inboard.outcome=finished}":                                                                5,
		"inboard.drain.requests{inboard.outcome=cut}":                                                                     1,
		"inboard.drain.connections{inboard.outcome=closed}":                                                               3,
		"inboard.drain.connections{inboard.outcome=idle}":                                                                 4,
		"inboard.drain.connections{inboard.outcome=cut}":                                                                  6,
		"inboard.drain.connections{inboard.outcome=refused}":                                                              7,
		"inboard.connections{inboard.cluster=a,inboard.connection.protocol=h2," +
			"inboard.connection.security=mutual_tls,inboard.direction=outbound}": 1,
		"inboard.connections{inboard.connection.protocol=_OTHER," +
			"inboard.connection.security=none,inboard.direction=inbound}": 1,
	}
	if diff := cmp.Diff(want, f.collect(t)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestCloseStopsTheCountersThatAreReadAtCollection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, sdktrace.NeverSample())
	call := httpCall()
	ctx := f.begin(context.Background(), call)
	f.attempt(ctx, call, answered(200))
	if err := f.telemetry.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.telemetry.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	f.end(ctx, call, answered(200))
	for name := range f.collect(t) {
		if strings.HasPrefix(name, "inboard.call.attempts") {
			t.Errorf("%s is still reported", name)
		}
	}
}

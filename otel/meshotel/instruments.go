package meshotel

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/semconv/v1.43.0/rpcconv"

	"github.com/inboardmesh/inboard/observe"
)

const (
	protocols  = int(observe.TCP) + 1
	directions = int(observe.Inbound) + 1
)

// instruments are all that is reported.
type instruments struct {
	durations [directions][protocols]metric.Float64Histogram
	active    [directions][protocols]metric.Int64ObservableUpDownCounter
	attempts  metric.Int64ObservableCounter

	breakerState      metric.Int64Gauge
	streamConnected   metric.Int64Gauge
	certificateExpiry metric.Int64Gauge
	lastGoodUsed      metric.Int64Gauge
	connections       metric.Int64UpDownCounter
	tripped           metric.Int64UpDownCounter
	ejected           metric.Int64UpDownCounter
	unhealthy         metric.Int64UpDownCounter
	remaining         metric.Int64ObservableGauge
	// counters are the instruments of the events that only count.
	counters map[event]metric.Int64Counter
}

// maker creates instruments and keeps what went wrong.
type maker struct {
	meter metric.Meter
	errs  []error
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	m := &maker{meter: meter}
	i := &instruments{
		breakerState:      m.gauge("inboard.breaker.state", "", "State of a cluster's error-rate breaker: 0 closed, 1 half-open, 2 open."),
		streamConnected:   m.gauge("inboard.xds.stream.connected", "", "Whether the stream to an xDS server is up: 0 or 1."),
		certificateExpiry: m.gauge("inboard.certificate.expiry", "s", "End of the workload certificate's validity, in seconds since 1970."),
		lastGoodUsed:      m.gauge("inboard.lastgood.resources", "{resource}", "Resources in force that are from disk, because the control plane has not answered."),
		counters: map[event]metric.Int64Counter{
			guestsRejected:      m.counter("inboard.guest.rejected", "{rejection}", "Rejections of what native gRPC clients and servers in this process were given."),
			lastGoodEvents:      m.counter("inboard.lastgood.files", "{file}", "Files of last known good configuration that were written, not written, or refused."),
			breakerTransitions:  m.counter("inboard.breaker.transitions", "{transition}", "Changes of error-rate breakers, of clusters and of endpoints."),
			ejections:           m.counter("inboard.endpoint.ejections", "{ejection}", "Ejections of endpoints by outlier detection."),
			healthChecks:        m.counter("inboard.endpoint.checks", "{check}", "Active health checks of endpoints."),
			overflows:           m.counter("inboard.overflow", "{attempt}", "Attempts refused by a limit or an open breaker."),
			connectionFailures:  m.counter("inboard.connection.failures", "{connection}", "Connections that could not be opened."),
			resourcesRejected:   m.counter("inboard.xds.resources.rejected", "{resource}", "xDS resources that were rejected (NACK)."),
			resourcesAccepted:   m.counter("inboard.xds.resources.accepted", "{resource}", "Changed xDS resources that were taken over."),
			certificateFailures: m.counter("inboard.certificate.failures", "{failure}", "Failures to get a workload certificate."),
			mirroredRequests:    m.counter("inboard.mirrored", "{request}", "Copies of requests that were sent to another cluster, or dropped."),
			nameLookups:         m.counter("inboard.dns.lookups", "{lookup}", "Questions to the resolver about the names of endpoints."),
			keyFetches:          m.counter("inboard.jwks.fetches", "{fetch}", "Fetches of key sets for tokens."),
			authorizationChecks: m.counter("inboard.authorization.checks", "{check}", "Questions to external authorization services."),
			authorizations:      m.counter("inboard.authorization.decisions", "{decision}", "Denials, decisions on trial, matches that are only reported, and those about which a service is asked."),
			drainedRequests:     m.counter("inboard.drain.requests", "{request}", "Requests that ran, or came, while the process drained, by what became of them."),
			drainedConnections:  m.counter("inboard.drain.connections", "{connection}", "Connections that were open, or came, while the process drained, by what became of them."),
			handshakeFailures:   m.counter("inboard.handshake.failures", "{connection}", "Inbound connections refused before they reached the application."),
		},
	}
	var err error
	i.attempts, err = meter.Int64ObservableCounter("inboard.call.attempts",
		metric.WithUnit("{attempt}"), metric.WithDescription("Attempts of outbound calls that have ended."))
	m.note(err)
	i.connections, err = meter.Int64UpDownCounter("inboard.connections",
		metric.WithUnit("{connection}"), metric.WithDescription("Open connections."))
	m.note(err)
	i.tripped, err = meter.Int64UpDownCounter("inboard.endpoint.tripped",
		metric.WithUnit("{endpoint}"), metric.WithDescription("Endpoints whose own error-rate breaker is open."))
	m.note(err)
	i.ejected, err = meter.Int64UpDownCounter("inboard.endpoint.ejected",
		metric.WithUnit("{endpoint}"), metric.WithDescription("Endpoints that outlier detection leaves out."))
	m.note(err)
	i.unhealthy, err = meter.Int64UpDownCounter("inboard.endpoint.unhealthy",
		metric.WithUnit("{endpoint}"), metric.WithDescription("Endpoints that active health checks find unfit for use."))
	m.note(err)
	i.remaining, err = meter.Int64ObservableGauge("inboard.cluster.remaining",
		metric.WithDescription("What is left of the limits of a cluster that tracks them."))
	m.note(err)
	m.perProtocol(i)
	return i, errors.Join(m.errs...)
}

// perProtocol creates the instruments that the semantic conventions name by
// protocol and side.
func (m *maker) perProtocol(i *instruments) {
	out, in := &i.durations[observe.Outbound], &i.durations[observe.Inbound]
	httpClient, err := httpconv.NewClientRequestDuration(m.meter)
	m.note(err)
	httpServer, err := httpconv.NewServerRequestDuration(m.meter)
	m.note(err)
	rpcClient, err := rpcconv.NewClientCallDuration(m.meter)
	m.note(err)
	rpcServer, err := rpcconv.NewServerCallDuration(m.meter)
	m.note(err)
	out[observe.HTTP], in[observe.HTTP] = httpClient.Inst(), httpServer.Inst()
	out[observe.GRPC], in[observe.GRPC] = rpcClient.Inst(), rpcServer.Inst()
	out[observe.TCP], err = m.meter.Float64Histogram("inboard.tcp.client.session.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of outbound raw connections."))
	m.note(err)
	in[observe.TCP], err = m.meter.Float64Histogram("inboard.tcp.server.session.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of inbound raw connections."))
	m.note(err)

	clients, servers := &i.active[observe.Outbound], &i.active[observe.Inbound]
	httpActive, err := httpconv.NewClientActiveRequestsObservable(m.meter)
	m.note(err)
	servedActive, err := httpconv.NewServerActiveRequestsObservable(m.meter)
	m.note(err)
	clients[observe.HTTP], servers[observe.HTTP] = httpActive.Inst(), servedActive.Inst()
	clients[observe.GRPC] = m.open("inboard.rpc.client.active_requests", "{request}", "Attempts of outbound gRPC calls that are open.")
	servers[observe.GRPC] = m.open("inboard.rpc.server.active_requests", "{request}", "Inbound gRPC calls that are open.")
	clients[observe.TCP] = m.open("inboard.tcp.client.active_sessions", "{session}", "Outbound raw connections that are open.")
	servers[observe.TCP] = m.open("inboard.tcp.server.active_sessions", "{session}", "Inbound raw connections that are open.")
}

func (m *maker) note(err error) {
	if err != nil {
		m.errs = append(m.errs, err)
	}
}

func (m *maker) counter(name, unit, description string) metric.Int64Counter {
	c, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.note(err)
	return c
}

func (m *maker) gauge(name, unit, description string) metric.Int64Gauge {
	g, err := m.meter.Int64Gauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.note(err)
	return g
}

func (m *maker) open(name, unit, description string) metric.Int64ObservableUpDownCounter {
	c, err := m.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	m.note(err)
	return c
}

func (i *instruments) observables() []metric.Observable {
	all := []metric.Observable{i.attempts, i.remaining}
	for d := range i.active {
		for p := range i.active[d] {
			all = append(all, i.active[d][p])
		}
	}
	return all
}

// timed makes one series of a duration histogram.
func (i *instruments) timed(k durationKey) *timed {
	return &timed{
		histogram: i.durations[k.direction][k.protocol],
		options:   []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(k.attributes()...))},
	}
}

// observe reports the counters that are read at collection.
func (t *Telemetry) observe(_ context.Context, o metric.Observer) error {
	t.capacities.Range(func(key, _ any) bool {
		t.observeCapacity(o, key.(*observe.Capacity))
		return true
	})
	for k, e := range t.active.all() {
		o.ObserveInt64(t.meters.active[k.direction][k.protocol], e.value.n.Load(), e.value.options...)
	}
	for _, e := range t.attempts.all() {
		o.ObserveInt64(t.meters.attempts, e.value.n.Load(), e.value.options...)
	}
	return nil
}

package meshotel

import (
	"fmt"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/inboardmesh/inboard/observe"
)

// scope is the instrumentation scope of everything that is reported.
const scope = "github.com/inboardmesh/inboard/otel/meshotel"

// maxMethods bounds the gRPC methods of this process's server that are told
// apart in metrics.
const maxMethods = 500

// Telemetry reports to OpenTelemetry what a mesh does. [Telemetry.Hooks] is to
// be passed to the mesh; whoever calls [New] calls [Telemetry.Close] after the
// mesh was closed. Safe for concurrent use.
type Telemetry struct {
	capacities sync.Map // of struct{} by *observe.Capacity
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	meters     *instruments
	callback   metric.Registration

	// durations, active and attempts are on the way of a request.
	durations *table[durationKey, timed]
	active    *table[activeKey, counted]
	attempts  *table[attemptKey, counted]
	events    *table[eventKey, labelled]
	// served are the gRPC methods that this process is known to have.
	served *names

	// calls recycles callState between calls, rooms what attributes are put together in.
	calls, rooms sync.Pool
}

// New returns a reporter to the providers of OpenTelemetry. It reports every
// mistake in the options together.
func New(opts ...Option) (*Telemetry, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	meter := c.meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	meters, err := newInstruments(meter)
	if err != nil {
		return nil, fmt.Errorf("telemetry: create instruments: %w", err)
	}
	limit := new(budget)
	limit.left.Store(int64(c.maxSeries))
	t := &Telemetry{
		tracer:     c.tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		propagator: c.propagator,
		meters:     meters,
		durations:  newTable(limit, meters.timed),
		active:     newTable(limit, newCounted[activeKey]),
		attempts:   newTable(limit, newCounted[attemptKey]),
		events:     newTable(limit, newLabelled),
		served:     newNames(maxMethods),
	}
	t.calls.New = func() any { return new(callState) }
	t.callback, err = meter.RegisterCallback(t.observe, meters.observables()...)
	if err != nil {
		return nil, fmt.Errorf("telemetry: register the counters' callback: %w", err)
	}
	return t, nil
}

// Hooks returns the functions to pass to the mesh.
func (t *Telemetry) Hooks() *observe.Hooks {
	return &observe.Hooks{
		CallStarted:          t.callStarted,
		CallEnded:            t.callEnded,
		AttemptStarted:       t.attemptStarted,
		AttemptEnded:         t.attemptEnded,
		BreakerChanged:       t.breakerChanged,
		EndpointEjected:      t.endpointEjected,
		EndpointReturned:     t.endpointReturned,
		HealthChecked:        t.healthChecked,
		HealthChanged:        t.healthChanged,
		Overflowed:           t.overflowed,
		CapacityTracked:      t.capacityTracked,
		CapacityUntracked:    t.capacityUntracked,
		Mirrored:             t.mirrored,
		KeysFetched:          t.keysFetched,
		AuthorizationChecked: t.authorizationChecked,
		NameResolved:         t.nameResolved,
		Authorized:           t.authorized,
		Drained:              t.drained,
		ConnOpened:           t.connOpened,
		ConnClosed:           t.connClosed,
		StreamChanged:        t.streamChanged,
		ResourceRejected:     t.resourceRejected,
		ResourceAccepted:     t.resourceAccepted,
		GuestRejected:        t.guestRejected,
		LastGood:             t.lastGood,
		CertificateChanged:   t.certificateChanged,
		HandshakeFailed:      t.handshakeFailed,
	}
}

// Close stops reporting the counters that are read when metrics are collected:
// open requests and attempts. Hooks that still run are harmless. It is
// idempotent and leaves the providers alone.
func (t *Telemetry) Close() error {
	if err := t.callback.Unregister(); err != nil {
		return fmt.Errorf("telemetry: unregister the counters' callback: %w", err)
	}
	return nil
}

// timed is one series of a duration histogram.
type timed struct {
	histogram metric.Float64Histogram
	options   []metric.RecordOption
}

// counted is one series of a counter that is read at collection, because an
// atomic costs a twentieth of a synchronous instrument's Add.
type counted struct {
	n       atomic.Int64
	options []metric.ObserveOption
}

// labelled is one series of an instrument off the request path.
type labelled struct {
	add      []metric.AddOption
	record   []metric.RecordOption
	observe  []metric.ObserveOption
	overflow bool
}

// attributed is a key that can be written as attributes.
type attributed interface{ attributes() []attribute.KeyValue }

func newCounted[K attributed](k K) *counted {
	return &counted{options: []metric.ObserveOption{metric.WithAttributeSet(attribute.NewSet(k.attributes()...))}}
}

func newLabelled(k eventKey) *labelled {
	set := metric.WithAttributeSet(attribute.NewSet(k.attributes()...))
	return &labelled{add: []metric.AddOption{set}, record: []metric.RecordOption{set}, observe: []metric.ObserveOption{set}, overflow: k.overflow}
}

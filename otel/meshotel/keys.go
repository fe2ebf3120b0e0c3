package meshotel

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// durationKey is a series of the durations of calls. Its strings come from the
// configuration or are normalized, never from the wire as they are.
type durationKey struct {
	result

	protocol observe.Protocol
	overflow bool
	// method is normalized for HTTP, without a slash for gRPC.
	method, scheme string
	target         string
	route          string
	cluster        string
}

func (k durationKey) overflowed() durationKey {
	return durationKey{result: result{direction: k.direction}, protocol: k.protocol, overflow: true}
}

func (k durationKey) slot() int {
	return int(k.status) + len(k.method) + len(k.target) + 3*len(k.route) + 5*len(k.cluster)
}

// attributes are few: the SDK looks at each of them whenever it records. An
// outbound call's target is its server.address and server.port.
func (k durationKey) attributes() []attribute.KeyValue {
	if k.overflow {
		return []attribute.KeyValue{overflowKey.Bool(true)}
	}
	attrs := make([]attribute.KeyValue, 0, 8)
	switch k.protocol { //exhaustive:enforce
	case observe.HTTP:
		attrs = append(attrs, semconv.HTTPRequestMethodKey.String(k.method))
		attrs = appendNonEmpty(attrs, semconv.URLSchemeKey, k.scheme)
	case observe.GRPC:
		attrs = append(attrs, semconv.RPCSystemNameGRPC, semconv.RPCMethod(k.method))
	case observe.TCP:
		attrs = append(attrs, semconv.NetworkTransportTCP)
	}
	if k.direction == observe.Outbound {
		attrs = appendTarget(attrs, k.target)
	}
	attrs = appendNonEmpty(attrs, RouteKey, k.route)
	attrs = appendNonEmpty(attrs, ClusterKey, k.cluster)
	return k.appendTo(attrs)
}

// appendTarget appends server.address and server.port of a client. A host that
// the configuration does not know is not bounded.
func appendTarget(attrs []attribute.KeyValue, target string) []attribute.KeyValue {
	if target == "" {
		return append(attrs, semconv.ServerAddress(other))
	}
	return appendServer(attrs, target)
}

// activeKey is a series of the requests that are open.
type activeKey struct {
	direction observe.Direction
	protocol  observe.Protocol
	overflow  bool
	// method and scheme are of inbound HTTP, target and cluster of outbound
	// attempts.
	method, scheme  string
	target, cluster string
}

func (k activeKey) overflowed() activeKey {
	return activeKey{direction: k.direction, protocol: k.protocol, overflow: true}
}

func (k activeKey) slot() int { return len(k.method) + len(k.target) + 5*len(k.cluster) }

func (k activeKey) attributes() []attribute.KeyValue {
	if k.overflow {
		return []attribute.KeyValue{overflowKey.Bool(true)}
	}
	var attrs []attribute.KeyValue
	if k.direction == observe.Outbound {
		attrs = appendTarget(attrs, k.target)
	}
	if k.protocol == observe.GRPC {
		attrs = append(attrs, semconv.RPCSystemNameGRPC)
	}
	attrs = appendNonEmpty(attrs, semconv.HTTPRequestMethodKey, k.method)
	attrs = appendNonEmpty(attrs, semconv.URLSchemeKey, k.scheme)
	return appendNonEmpty(attrs, ClusterKey, k.cluster)
}

// attemptKey is a series of the attempts that have ended.
type attemptKey struct {
	protocol observe.Protocol
	kind     outcome.Kind
	verdict  outcome.Verdict
	resend   bool
	hedge    bool
	overflow bool
	cluster  string
}

func (k attemptKey) overflowed() attemptKey { return attemptKey{overflow: true} }

func (k attemptKey) slot() int {
	slot := int(k.kind) + 3*int(k.verdict) + 5*len(k.cluster)
	if k.resend {
		slot += 7
	}
	if k.hedge {
		slot += 11
	}
	return slot
}

func (k attemptKey) attributes() []attribute.KeyValue {
	if k.overflow {
		return []attribute.KeyValue{overflowKey.Bool(true)}
	}
	attrs := []attribute.KeyValue{
		ProtocolKey.String(k.protocol.String()),
		OutcomeKey.String(k.kind.String()),
		VerdictKey.String(verdictName(k.verdict)),
		ResendKey.Bool(k.resend),
	}
	if k.hedge {
		attrs = append(attrs, HedgeKey.Bool(true))
	}
	return appendNonEmpty(attrs, ClusterKey, k.cluster)
}

// event is an instrument that is off the way of a request.
type event uint8

const (
	breakerState event = iota
	breakerTransitions
	trippedEndpoints
	ejectedEndpoints
	ejections
	unhealthyEndpoints
	healthChecks
	remainingCapacity
	overflows
	connections
	connectionFailures
	streamConnected
	resourcesRejected
	resourcesAccepted
	certificateExpiry
	certificateFailures
	handshakeFailures
	mirroredRequests
	keyFetches
	nameLookups
	authorizationChecks
	authorizations
	drainedRequests
	drainedConnections
	guestsRejected
	lastGoodUsed
	lastGoodEvents
)

// eventLabels are the attributes of each instrument, in the order in which
// they stand in an eventKey.
var eventLabels = [...][]attribute.Key{
	breakerState:        {ClusterKey},
	breakerTransitions:  {ClusterKey, stateKey, scopeKey},
	trippedEndpoints:    {ClusterKey},
	ejectedEndpoints:    {ClusterKey},
	ejections:           {ClusterKey, reasonKey},
	unhealthyEndpoints:  {ClusterKey},
	healthChecks:        {ClusterKey, checkKey},
	remainingCapacity:   {ClusterKey, priorityKey, resourceKey},
	overflows:           {ClusterKey, resourceKey},
	connections:         {directionKey, ClusterKey, alpnKey, securityKey},
	connectionFailures:  {directionKey, ClusterKey},
	streamConnected:     {serverKey},
	resourcesRejected:   {serverKey, typeKey},
	resourcesAccepted:   {serverKey, typeKey},
	certificateExpiry:   {sourceKey},
	certificateFailures: {sourceKey},
	handshakeFailures:   {listenerKey},
	mirroredRequests:    {ClusterKey, OutcomeKey},
	keyFetches:          {ClusterKey, OutcomeKey, failureKey},
	nameLookups:         {ClusterKey, OutcomeKey},
	authorizationChecks: {ClusterKey, OutcomeKey, failureKey},
	authorizations:      {listenerKey, OutcomeKey},
	drainedRequests:     {OutcomeKey},
	drainedConnections:  {OutcomeKey},
	guestsRejected:      {typeKey},
	lastGoodUsed:        {},
	lastGoodEvents:      {OutcomeKey},
}

// eventKey is a series of an event.
type eventKey struct {
	event    event
	overflow bool
	labels   [4]string
}

func (k eventKey) overflowed() eventKey { return eventKey{event: k.event, overflow: true} }

func (k eventKey) slot() int { return int(k.event) + 3*len(k.labels[0]) }

func (k eventKey) attributes() []attribute.KeyValue {
	if k.overflow {
		return []attribute.KeyValue{overflowKey.Bool(true)}
	}
	var attrs []attribute.KeyValue
	for i, key := range eventLabels[k.event] {
		attrs = appendNonEmpty(attrs, key, k.labels[i])
	}
	return attrs
}

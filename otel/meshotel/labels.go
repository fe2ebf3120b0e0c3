package meshotel

import (
	"net"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Attributes of the mesh's own, beside those of the semantic conventions.
const (
	// TargetKey is the xDS resource that configured the call (spans only: in
	// metrics it is server.address and server.port).
	TargetKey = attribute.Key("inboard.target")
	// RouteKey is the name of the matched route.
	RouteKey = attribute.Key("inboard.route")
	// ClusterKey is the name of the chosen cluster.
	ClusterKey = attribute.Key("inboard.cluster")
	// ProtocolKey is "http", "grpc" or "tcp".
	ProtocolKey = attribute.Key("inboard.protocol")
	// OutcomeKey is how an attempt ended, by the names of [outcome.Kind].
	OutcomeKey = attribute.Key("inboard.outcome")
	// VerdictKey is what that says about the endpoint: "success", "failure" or
	// "ignored".
	VerdictKey = attribute.Key("inboard.verdict")
	// ResendKey is false for the first attempt of a call.
	ResendKey = attribute.Key("inboard.resend")
	// HedgeKey is true for an attempt that was begun while another one of its call
	// was still running, and absent otherwise.
	HedgeKey = attribute.Key("inboard.hedge")
	// AttemptsKey is the number of attempts of a call (spans only).
	AttemptsKey = attribute.Key("inboard.attempts")
	// AttemptKey is the number of the attempt, from 1 (spans only).
	AttemptKey = attribute.Key("inboard.attempt")
	// LocalityKey is the endpoint's "region/zone/subzone" (spans only).
	LocalityKey = attribute.Key("inboard.locality")
	// PeerIDKey is the verified SPIFFE ID of the peer (spans only).
	PeerIDKey = attribute.Key("inboard.peer.id")

	directionKey = attribute.Key("inboard.direction")
	resourceKey  = attribute.Key("inboard.resource")
	reasonKey    = attribute.Key("inboard.ejection.reason")
	failureKey   = attribute.Key("inboard.failure.reason")
	checkKey     = attribute.Key("inboard.check.result")
	priorityKey  = attribute.Key("inboard.routing.priority")
	stateKey     = attribute.Key("inboard.breaker.state")
	scopeKey     = attribute.Key("inboard.breaker.scope")
	alpnKey      = attribute.Key("inboard.connection.protocol")
	securityKey  = attribute.Key("inboard.connection.security")
	serverKey    = attribute.Key("inboard.xds.server")
	typeKey      = attribute.Key("inboard.xds.resource.type")
	sourceKey    = attribute.Key("inboard.certificate.source")
	listenerKey  = attribute.Key("inboard.listener")

	// overflowKey is the SDK's own mark of what went past a limit.
	overflowKey = attribute.Key("otel.metric.overflow")
)

// other stands for every value that is not in a bounded set.
const other = "_OTHER"

// noStatus is the status of what ended without an answer.
const noStatus = -1

// grpcCodes are the names of the gRPC status codes, as the semantic
// conventions for gRPC want them.
var grpcCodes = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED",
	"NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

const (
	grpcOK                = 0
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcDataLoss          = 15
	grpcUnauthenticated   = 16
)

// httpMethod returns a method of RFC 9110, RFC 5789 or the QUERY draft as it
// is, and "_OTHER" for everything else.
func httpMethod(method string) string {
	switch method {
	case "":
		// net/http sends GET.
		return "GET"
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method
	}
	return other
}

// rpcMethod returns the method without the slash of its path.
func rpcMethod(method string) string { return strings.TrimPrefix(method, "/") }

// scheme keeps what stands in a request line from becoming a label.
func scheme(s string) string {
	switch s {
	case "http", "https", "":
		return s
	}
	return other
}

// status is the bounded status of o: an HTTP status in 100..599, a gRPC code
// in 0..16 (larger ones are UNKNOWN, as the gRPC specification says), or
// noStatus.
func status(o *outcome.Outcome) int16 {
	switch {
	case o.GRPC && o.Code < uint32(len(grpcCodes)):
		return int16(o.Code)
	case o.GRPC:
		return grpcUnknown
	case o.Status >= 100 && o.Status <= 599:
		return int16(o.Status)
	}
	return noStatus
}

// result is how a call or an attempt ended, with bounded values.
type result struct {
	direction observe.Direction
	kind      outcome.Kind
	grpc      bool
	status    int16
}

func newResult(d observe.Direction, o *outcome.Outcome) result {
	return result{direction: d, kind: o.Kind, grpc: o.GRPC, status: status(o)}
}

// errorType returns the value of error.type, "" for what is not an error. A
// server's own error is one that it is to blame for (HTTP 5xx and the codes
// that the conventions list); to a client, HTTP 4xx and every gRPC code but OK
// are errors too.
func (r result) errorType() string {
	if r.kind != outcome.Response && r.kind != outcome.Local {
		return r.kind.String()
	}
	switch {
	case r.status == noStatus:
		return ""
	case r.grpc && r.direction == observe.Inbound:
		switch r.status {
		case grpcUnknown, grpcDeadlineExceeded, grpcUnimplemented, grpcInternal, grpcUnavailable, grpcDataLoss:
			return grpcCodes[r.status]
		}
		return ""
	case r.grpc:
		if r.status == grpcOK {
			return ""
		}
		return grpcCodes[r.status]
	case r.status >= 500, r.status >= 400 && r.direction == observe.Outbound:
		return strconv.Itoa(int(r.status))
	}
	return ""
}

// appendTo appends the status and the error type.
func (r result) appendTo(attrs []attribute.KeyValue) []attribute.KeyValue {
	switch {
	case r.status == noStatus:
	case r.grpc:
		attrs = append(attrs, semconv.RPCResponseStatusCode(grpcCodes[r.status]))
	default:
		attrs = append(attrs, semconv.HTTPResponseStatusCode(int(r.status)))
	}
	if e := r.errorType(); e != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(e))
	}
	return attrs
}

// appendServer appends server.address and server.port of an authority.
func appendServer(attrs []attribute.KeyValue, authority string) []attribute.KeyValue {
	host, port := splitHostPort(authority)
	attrs = append(attrs, semconv.ServerAddress(host))
	if port > 0 {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	return attrs
}

// splitHostPort returns port 0 if there is none.
func splitHostPort(authority string) (string, int) {
	host, text, err := net.SplitHostPort(authority)
	if err != nil {
		return authority, 0
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, int(port)
}

func appendNonEmpty(attrs []attribute.KeyValue, key attribute.Key, value string) []attribute.KeyValue {
	if value == "" {
		return attrs
	}
	return append(attrs, key.String(value))
}

func directionName(d observe.Direction) string {
	if d == observe.Inbound {
		return "inbound"
	}
	return "outbound"
}

func verdictName(v outcome.Verdict) string {
	switch v {
	case outcome.Success:
		return "success"
	case outcome.Failure:
		return "failure"
	}
	return "ignored"
}

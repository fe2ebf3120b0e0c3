// Package outcome says how one attempt of a call, or a whole call, ended.
//
// Retry, error-rate breaker, outlier detection and metrics must agree on what
// failed, so all of them read the same [Outcome] and the same [Outcome.Verdict].
package outcome

// Kind tells at which point an attempt ended.
type Kind uint8

const (
	// Response means that the peer answered: Status or Code says what.
	Response Kind = iota
	// ConnectFailure means that no connection could be made; no byte of the
	// request was sent.
	ConnectFailure
	// RefusedStream means that the peer certified that it did not process
	// the request (HTTP/2 REFUSED_STREAM, or GOAWAY with a lower stream id).
	RefusedStream
	// ResetBeforeRequest means that the connection broke before the first
	// byte of the request was written.
	ResetBeforeRequest
	// Reset means that the connection or the stream broke after something was
	// sent and before a response arrived. The peer may have acted on it.
	Reset
	// PerTryTimeout means that the attempt ran out of its own time.
	PerTryTimeout
	// Timeout means that the whole call ran out of time: the route's timeout
	// or the caller's deadline.
	Timeout
	// Canceled means that the caller gave up. It is nobody's failure.
	Canceled
	// Overflow means that a limit of the mesh (connections, pending requests,
	// requests, open breaker) refused the attempt before it was sent.
	Overflow
	// NoEndpoint means that the chosen cluster has no endpoint to send to.
	NoEndpoint
	// Local means that the mesh itself answered (fault injection, direct
	// response, drop): neither an endpoint's success nor its failure.
	Local
	// BodyFailure means that the caller's own request is at fault: its body
	// failed to be read, or it cannot be sent as it is.
	BodyFailure
	// NoRoute means that no route of the target matched the request.
	NoRoute
	// UnknownHost means that the control plane does not know the host and that
	// the outbound policy refuses such hosts.
	UnknownHost
	// NoConfig means that there is no usable configuration for the target: it
	// has not arrived in time, or it was rejected.
	NoConfig
	// Closed means that the mesh was closed.
	Closed
)

var kindNames = [...]string{
	"response", "connect-failure", "refused-stream", "reset-before-request",
	"reset", "per-try-timeout", "timeout", "canceled", "overflow",
	"no-endpoint", "local", "body-failure", "no-route", "unknown-host",
	"no-config", "closed",
}

// String returns the name used in logs and metric labels.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Verdict is what an outcome says about the endpoint that produced it.
type Verdict uint8

const (
	// Success counts for the endpoint.
	Success Verdict = iota
	// Failure counts against the endpoint.
	Failure
	// Ignored says nothing about the endpoint: the caller went away, or the
	// attempt never reached an endpoint.
	Ignored
)

// gRPC status codes that this package must know. They are spelled out so that
// no leaf of the mesh depends on grpc-go.
const (
	codeUnknown          = 2
	codeDeadlineExceeded = 4
	codeUnimplemented    = 12
	codeInternal         = 13
	codeUnavailable      = 14
	codeDataLoss         = 15
)

// Outcome is how an attempt ended. The zero value is an HTTP response without
// a status and counts as a success.
type Outcome struct {
	Kind Kind
	// Status is the HTTP status of a Response, 0 for gRPC.
	Status int
	// GRPC is true when Code holds the gRPC status of the attempt.
	GRPC bool
	Code uint32
	// Header returns the first value of a response header (or, for gRPC, of a
	// response header or trailer), "" if absent. It may be nil.
	Header func(name string) string
	// RetriableHeader is true for a Response with a header that the retry policy
	// lists (retriable_headers).
	RetriableHeader bool
	// Sent is false only if it is certain that no byte of the request left
	// the process, so that sending it again can never repeat an effect.
	Sent bool
	// Repeatable is true for a Reset of which the request may be repeated: it is
	// idempotent, and went over a connection that ended before a byte of an answer
	// and may have been closed while it was idle (RFC 9110, section 9.2.2).
	Repeatable bool
	// Excused is true for a Timeout that says nothing of the peer: the deadline was the
	// caller's and left it little time, or it had begun to answer.
	Excused bool
	// Err is the local error behind every Kind but Response and Local.
	Err error
}

// HeaderValue returns the named response header, "" without one.
func (o *Outcome) HeaderValue(name string) string {
	if o.Header == nil {
		return ""
	}
	return o.Header(name)
}

// Verdict classifies the outcome for the endpoint's account: an HTTP status of
// 500 or more, the gRPC codes UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
// UNAVAILABLE and DATA_LOSS (those that Envoy's gRPC-to-HTTP mapping makes 5xx),
// a broken connection and a timeout are failures; a caller's cancellation, a timeout
// that is excused and a refusal by the mesh itself are ignored.
func (o *Outcome) Verdict() Verdict {
	switch o.Kind {
	case Response:
		if o.GRPC {
			switch o.Code {
			case codeUnknown, codeDeadlineExceeded, codeUnimplemented, codeInternal, codeUnavailable, codeDataLoss:
				return Failure
			}
			return Success
		}
		if o.Status >= 500 {
			return Failure
		}
		return Success
	case Timeout:
		if o.Excused {
			return Ignored
		}
		return Failure
	case ConnectFailure, RefusedStream, ResetBeforeRequest, Reset, PerTryTimeout:
		return Failure
	}
	return Ignored
}

// Gateway reports whether a failure is one that a gateway would tell of with 502,
// 503 or 504, in Envoy's reading: such a response, the gRPC codes UNAVAILABLE and
// DEADLINE_EXCEEDED, and everything that kept a response from coming.
func (o *Outcome) Gateway() bool {
	switch {
	case o.Verdict() != Failure:
		return false
	case o.Kind != Response:
		return true
	case o.GRPC:
		return o.Code == codeUnavailable || o.Code == codeDeadlineExceeded
	}
	return o.Status >= 502 && o.Status <= 504
}

// Package observe is what the mesh reports about itself, without saying to
// whom: [Hooks] is a struct of functions, each of which may be nil.
//
// otel/meshotel implements it with OpenTelemetry; tests implement the one hook
// that they need. Hooks run on the goroutine that reports, some of them on the
// way of a request: they must not block and must not call back into the mesh.
package observe

import (
	"context"
	"time"

	"github.com/inboardmesh/inboard/outcome"
)

// Direction tells which side of a call this process is.
type Direction uint8

const (
	// Outbound is a call that this process makes.
	Outbound Direction = iota
	// Inbound is a call that this process serves.
	Inbound
)

// Protocol is the application protocol of a call.
type Protocol uint8

const (
	// HTTP is HTTP/1.1 or HTTP/2.
	HTTP Protocol = iota
	// GRPC is gRPC.
	GRPC
	// TCP is a raw connection.
	TCP
)

// String returns "http", "grpc" or "tcp".
func (p Protocol) String() string {
	switch p {
	case HTTP:
		return "http"
	case GRPC:
		return "grpc"
	}
	return "tcp"
}

// Carrier is the header block of a request, for context propagation. It has
// the methods of OpenTelemetry's propagation.TextMapCarrier. Printed or marshaled it
// is the names alone, so that who logs a call does not log credentials.
type Carrier interface {
	Get(key string) string
	Set(key, value string)
	Keys() []string
}

// Call is one call as the application sees it, retries included. The mesh
// fills the upper fields before CallStarted and the lower ones before
// CallEnded. Observers keep no reference to it after CallEnded.
type Call struct {
	Direction Direction
	Protocol  Protocol
	// Streaming is true for gRPC streams.
	Streaming bool
	// Method is the HTTP method, or the full gRPC method ("/pkg.Service/Method").
	Method string
	// Host is the authority that the caller asked for, with the port.
	Host string
	// Scheme is "http" or "https".
	Scheme string
	// Path is the request's path without the query. It is unbounded: never a
	// metric label.
	Path string
	// Headers are the incoming headers on the Inbound side; nil on the
	// Outbound side, where an attempt carries them.
	Headers Carrier
	// PeerID is the verified SPIFFE ID of the caller (Inbound), or "".
	PeerID string
	// PeerAddress is the caller's network address (Inbound).
	PeerAddress string

	// Target is the xDS resource that configured the call, e.g.
	// "payment.shop.svc.cluster.local:8080"; "" if it bypassed the mesh.
	Target string
	// Route is the name of the matched route, Cluster of the chosen cluster.
	Route   string
	Cluster string
	// Attempts is how many attempts were started.
	Attempts int
	// Outcome is the result that the caller got.
	Outcome outcome.Outcome
	// Start and End delimit the call; End is when the response body, or the
	// stream, ended.
	Start, End time.Time

	// State belongs to the observer: what CallStarted puts here, CallEnded
	// finds here.
	State any
}

// Attempt is one attempt of an outbound call.
type Attempt struct {
	Call *Call
	// Number counts from 1.
	Number int
	// Hedge tells of an attempt that was begun while another one was still running.
	Hedge bool
	// Cluster and Endpoint are where the attempt goes. Endpoint is known from
	// AttemptEnded on; it is "" if none could be picked.
	Cluster  string
	Endpoint string
	// Locality is the endpoint's zone ("region/zone/subzone"), or "".
	Locality string
	// Headers are the outgoing headers; the observer may add to them.
	Headers Carrier
	Outcome outcome.Outcome
	Start   time.Time
	End     time.Time
	// State belongs to the observer.
	State any
}

// BreakerEvent is a change of an error-rate breaker.
type BreakerEvent struct {
	Cluster string
	// Endpoint is whose breaker it is, "" for that of the cluster as a whole.
	Endpoint string
	// From and To are "closed", "open" or "half-open". The breaker of an endpoint that
	// has left its cluster, or has lost its breaker, is closed.
	From, To string
}

// EjectionEvent is an endpoint that outlier detection left out, or took back.
type EjectionEvent struct {
	Cluster  string
	Endpoint string
	// Reason is the detector that ejected it: "consecutive-5xx",
	// "consecutive-gateway-failure", "consecutive-local-origin-failure",
	// "success-rate", "success-rate-local-origin", "failure-percentage" or
	// "failure-percentage-local-origin".
	Reason string
}

// HealthCheck is an active health check of an endpoint that has ended.
type HealthCheck struct {
	Cluster  string
	Endpoint string
	// Result is "success", "degraded", "failure" (the endpoint says that it is not
	// well), "retriable" or "unreachable" (these two count towards a threshold).
	Result string
	// Err is why it is no success; nil for one.
	Err      error
	Duration time.Duration
}

// HealthEvent is an endpoint that active health checks found to be unfit for use, or
// fit again.
type HealthEvent struct {
	Cluster  string
	Endpoint string
	Healthy  bool
}

// Capacity is the limits of a cluster for one routing priority, which the
// configuration asks to be tracked (track_remaining).
type Capacity struct {
	Cluster string
	// Priority is "default" or "high".
	Priority string
	// Remaining is how much may be added now. It is quick, and may be called at any
	// time from any goroutine.
	Remaining func() Remaining
}

// Remaining is what is left of limits.
type Remaining struct{ Connections, Pending, Requests, Retries uint32 }

// OverflowEvent is an attempt refused by a limit.
type OverflowEvent struct {
	Cluster string
	// Resource is "connections", "pending", "requests", "retries", "budget",
	// "breaker" or, for the throttle of retries, "throttle". It is "replay" if a retry
	// was due of a request that was too large to be kept for one.
	Resource string
}

// MirrorEvent is a copy of a request that went to another cluster, or could not.
// A copy is no call of the application: it is in no trace, and no other hook runs
// for it but those of connections, limits and outlier detection.
type MirrorEvent struct {
	// Protocol, Target and Route are those of the call that was copied.
	Protocol Protocol
	Target   string
	Route    string
	// Cluster is the one that the copy is for, Endpoint where it was sent, or "".
	Cluster  string
	Endpoint string
	// Dropped is why no copy was sent, or none that is whole: "in-flight" (as many
	// as are allowed are under way, to the cluster or altogether), "too-large" (the request is larger than what
	// is kept of it), "too-slow" (the copy of a stream did not keep up),
	// "incomplete" (the call ended before its request did), "unsendable" (an
	// upgrade, or a message that cannot be encoded), "no-cluster" or "closed". It
	// is "" for a copy that was sent.
	Dropped string
	// Outcome is how a copy that was sent ended. Its response was dropped.
	Outcome outcome.Outcome
	// Start and End delimit a copy that was sent.
	Start, End time.Time
}

// ConnEvent is a connection that was opened or closed.
type ConnEvent struct {
	Direction Direction
	Cluster   string
	Endpoint  string
	// Protocol is what was negotiated: "http/1.1", "h2", "grpc" or "tcp".
	Protocol string
	// TLS tells whether the connection is mutually authenticated; PeerID is
	// the peer's verified identity then.
	TLS    bool
	PeerID string
	// Err is why it could not be opened, or why it broke; nil otherwise.
	Err error
	// Duration is the time to connect (opened) or the connection's life (closed).
	Duration time.Duration
}

// StreamEvent is a change of the connection to an xDS server.
type StreamEvent struct {
	Server    string
	Connected bool
	Err       error
}

// ResourceEvent is something that happened to an xDS resource.
type ResourceEvent struct {
	Server string
	// Type is the short type name: "Listener", "RouteConfiguration",
	// "Cluster" or "ClusterLoadAssignment".
	Type string
	// Name is "" for a response that was rejected as a whole.
	Name    string
	Version string
	Err     error
}

// LastGoodEvent is something that happened to the configuration that is kept on disk
// for a start without a control plane.
type LastGoodEvent struct {
	Kind LastGoodKind
	// Resources is how many there are: in use, or in the file.
	Resources int
	// Saved is when the control plane last stood by what is used.
	Saved time.Time
	// Bytes is the size of the file that was written.
	Bytes int64
	// Err is why something was refused or not written.
	Err error
}

// LastGoodKind is what happened.
type LastGoodKind uint8

const (
	// LastGoodUsed is a change of how many resources from disk are in use. 0 means
	// that all that is in force came from the control plane.
	LastGoodUsed LastGoodKind = iota
	// LastGoodRefused is a file, or a resource in it, that is not used.
	LastGoodRefused
	// LastGoodWritten is a new file.
	LastGoodWritten
	// LastGoodNotWritten is a file that could not be written. It is reported once for
	// each reason, until writing works again.
	LastGoodNotWritten
)

// String returns "used", "refused", "written" or "not-written".
func (k LastGoodKind) String() string {
	switch k {
	case LastGoodUsed:
		return "used"
	case LastGoodRefused:
		return "refused"
	case LastGoodWritten:
		return "written"
	case LastGoodNotWritten:
		return "not-written"
	}
	return "unknown"
}

// ResolveEvent is one question to the resolver about the name of endpoints.
type ResolveEvent struct {
	Cluster string
	// Host is the name that was asked for.
	Host string
	// Addresses is how many there are; 0 with Err, which leaves those in force that
	// were found before.
	Addresses int
	Duration  time.Duration
	Err       error
}

// CertificateEvent is a new workload certificate, or a failure to get one.
type CertificateEvent struct {
	// Source names the certificate provider instance, e.g. "default".
	Source   string
	ID       string
	NotAfter time.Time
	Err      error
}

// HandshakeEvent is an inbound connection that was refused before it reached
// the application, or whose peer was refused later: its certificate has expired,
// or the roots that vouched for it were withdrawn.
type HandshakeEvent struct {
	Listener    string
	PeerAddress string
	Err         error
}

// KeysEvent is an attempt to fetch the keys that verify tokens.
type KeysEvent struct {
	// Providers are the names of those whose tokens the keys verify, sorted.
	Providers []string
	Cluster   string
	// Host is the authority that they were asked from, URL what was asked for, without
	// the query.
	Host, URL string
	// Keys is how many of them can be used.
	Keys int
	// Err is why there are none: then the last ones stay until they expire. InUse
	// tells that there are such, and Reason is what kind of failure it is, see
	// [ServiceState]; "closed" if the mesh was closed meanwhile.
	Err      error
	Reason   string
	InUse    bool
	Duration time.Duration
}

// CheckEvent is a question to an external authorization service.
type CheckEvent struct {
	Cluster string
	// Authority is what the service is called, "" if it is asked with the host of the
	// request.
	Authority string
	// Result is "ok", "denied", or "error" if there was no answer: then Err says
	// why, Reason what kind of failure it is, see [ServiceState], and Allowed whether
	// the configuration lets the request pass nevertheless. The reason "request" is a
	// request about which nobody can be asked, of which the service knows nothing.
	Result   string
	Allowed  bool
	Err      error
	Reason   string
	Duration time.Duration
}

// AuthorizationEvent is a decision of an authorization policy that is to be
// seen: a denial, what a rule on trial would have decided, a match of a rule
// that only reports, or of one that has a service asked.
type AuthorizationEvent struct {
	Listener string
	// Prefix tells several filters of a listener apart; mostly "".
	Prefix string
	// Policy is the name of the policy that matched, "" if none did. It is for
	// logs: callers are not told.
	Policy string
	// Allowed is the decision. Shadow decisions are not carried out.
	Allowed bool
	Shadow  bool
	// Logged is set for a match of a policy that only reports.
	Logged bool
	// Asked is set for a match of a policy that leaves the decision to a service
	// (CUSTOM), which is asked next; what it says is a CheckEvent. Allowed is set too,
	// for nothing is denied by the match.
	Asked bool
	// Method and Path are those of the request, "" for a connection. Path is
	// unbounded, as is what a peer says about itself: never a metric label.
	Method, Path string
	// PeerID is the verified SPIFFE ID of the peer, or "".
	PeerID      string
	PeerAddress string
}

// Hooks is what the mesh reports. Every field may be nil; the zero value
// reports nothing. It is frozen when it is passed to the mesh.
type Hooks struct {
	// CallStarted runs when a call enters the mesh. The context that it
	// returns is used for the call. On the Inbound side it extracts the
	// caller's trace context from call.Headers.
	CallStarted func(ctx context.Context, call *Call) context.Context
	// CallEnded runs when the response body or the stream has ended. It runs
	// exactly once for each CallStarted.
	CallEnded func(ctx context.Context, call *Call)
	// AttemptStarted runs before an attempt is sent. It may add headers for
	// context propagation. The context that it returns is used for the attempt.
	AttemptStarted func(ctx context.Context, attempt *Attempt) context.Context
	// AttemptEnded runs exactly once for each AttemptStarted.
	AttemptEnded func(ctx context.Context, attempt *Attempt)

	// Mirrored runs once for each copy of a request that a route asks for: when
	// its response has been read, or when it is clear that no copy is sent.
	Mirrored func(MirrorEvent)

	BreakerChanged func(BreakerEvent)
	// EndpointEjected runs when outlier detection leaves an endpoint out.
	EndpointEjected func(EjectionEvent)
	// EndpointReturned runs exactly once for each EndpointEjected: when the
	// endpoint is in service again, or has left its cluster, or detection ended.
	// Of two events that are close together either may run first.
	EndpointReturned func(EjectionEvent)
	// HealthChecked runs at the end of each active health check.
	HealthChecked func(HealthCheck)
	// HealthChanged runs when active health checks find an endpoint unfit for use,
	// and exactly once more after that: when it is fit again, or has left its
	// cluster, or checks ended. Of two events that are close together either may
	// run first.
	HealthChanged func(HealthEvent)
	Overflowed    func(OverflowEvent)
	// NameResolved runs after every question to the resolver.
	NameResolved func(ResolveEvent)
	// CapacityTracked runs when the configuration begins to ask for a Capacity to be
	// tracked, CapacityUntracked exactly once after that, with the same one: when it
	// does not any more, or the cluster is gone.
	CapacityTracked   func(*Capacity)
	CapacityUntracked func(*Capacity)
	ConnOpened        func(ConnEvent)
	ConnClosed        func(ConnEvent)

	// StreamChanged runs when an xDS stream comes up or breaks.
	StreamChanged func(StreamEvent)
	// ResourceRejected runs once per distinct rejection (NACK).
	ResourceRejected func(ResourceEvent)
	// ResourceAccepted runs when a changed resource is taken over.
	ResourceAccepted func(ResourceEvent)
	// GuestRejected runs when a native gRPC client or server in this process
	// rejects what it is sent of the configuration: Server is which, "guest 1".
	// What it is refused on purpose is not reported.
	GuestRejected func(ResourceEvent)

	// LastGood runs when something happens to the configuration that is kept on disk.
	LastGood func(LastGoodEvent)

	CertificateChanged func(CertificateEvent)
	HandshakeFailed    func(HandshakeEvent)

	// Drained runs when the process has drained, or given up.
	Drained func(DrainReport)

	// KeysFetched runs for every attempt, successful or not.
	KeysFetched func(KeysEvent)
	// AuthorizationChecked runs for every question to an external authorization
	// service.
	AuthorizationChecked func(CheckEvent)
	// Authorized runs for every decision that is to be seen, see
	// [AuthorizationEvent]. What is allowed and was not on trial is not reported.
	Authorized func(AuthorizationEvent)
}

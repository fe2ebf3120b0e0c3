package retry

import (
	"fmt"
	"strings"
)

// Conditions is a set of reasons to try again (retry_on). One that holds is
// enough. The zero value never retries.
type Conditions uint32

// The conditions of Envoy's router and of gRFC A44. What an answer is depends
// on [outcome.Outcome]; no condition holds for an outcome that is never
// retried, see [Policy.Retryable].
const (
	// On5xx holds for an HTTP status of 500 to 599 and for every attempt
	// without a response; it includes OnConnectFailure and OnRefusedStream.
	On5xx Conditions = 1 << iota
	// OnGatewayError holds for 502, 503 and 504 and, since Envoy turns them
	// into one of these, for every attempt without a response.
	OnGatewayError
	// OnReset holds for every attempt without a response: no connection,
	// refused, reset, or out of its own time.
	OnReset
	// OnResetBeforeRequest holds for an attempt of which nothing was sent.
	OnResetBeforeRequest
	// OnConnectFailure holds if no connection could be made.
	OnConnectFailure
	// OnRefusedStream holds if the peer certified that it did not process the
	// request.
	OnRefusedStream
	// OnRetriable4xx holds for 409 only.
	OnRetriable4xx
	// OnRetriableStatusCodes holds for the statuses that the policy lists.
	OnRetriableStatusCodes
	// OnRetriableHeaders holds for a response with a header that the
	// configuration lists (outcome.Outcome.RetriableHeader).
	OnRetriableHeaders
	// OnEnvoyRateLimited holds for a response with the header
	// x-envoy-ratelimited, which forbids all other conditions.
	OnEnvoyRateLimited
	// OnGRPCCancelled holds for the gRPC status CANCELLED.
	OnGRPCCancelled
	// OnGRPCDeadlineExceeded holds for the gRPC status DEADLINE_EXCEEDED.
	OnGRPCDeadlineExceeded
	// OnGRPCInternal holds for the gRPC status INTERNAL.
	OnGRPCInternal
	// OnGRPCResourceExhausted holds for the gRPC status RESOURCE_EXHAUSTED.
	OnGRPCResourceExhausted
	// OnGRPCUnavailable holds for the gRPC status UNAVAILABLE.
	OnGRPCUnavailable
	// OnHTTP3PostConnectFailure is about HTTP/3, which the mesh does not
	// speak: it never holds.
	OnHTTP3PostConnectFailure
)

// conditionNames holds the name of condition 1<<i at index i.
var conditionNames = [...]string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure",
	"refused-stream", "retriable-4xx", "retriable-status-codes",
	"retriable-headers", "envoy-ratelimited", "cancelled", "deadline-exceeded",
	"internal", "resource-exhausted", "unavailable",
	"http3-post-connect-failure",
}

// ParseConditions reads a retry_on value: names of Envoy's x-envoy-retry-on and
// x-envoy-retry-grpc-on, separated by commas, with spaces around them if need
// be. Empty elements are skipped; "" is the empty set. An unknown name is an
// error (Envoy ignores it, which hides typing mistakes).
func ParseConditions(s string) (Conditions, error) {
	var set Conditions
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		c, ok := conditionNamed(name)
		if !ok {
			return 0, fmt.Errorf("retry condition %q is unknown: use one of %s", name, strings.Join(conditionNames[:], ", "))
		}
		set |= c
	}
	return set, nil
}

// String returns the names in the form that [ParseConditions] reads.
func (c Conditions) String() string {
	var b strings.Builder
	for i, name := range conditionNames {
		if c&(1<<i) == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(name)
	}
	return b.String()
}

func conditionNamed(name string) (Conditions, bool) {
	for i, known := range conditionNames {
		if name == known {
			return 1 << i, true
		}
	}
	return 0, false
}

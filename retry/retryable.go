package retry

import (
	"slices"
	"strconv"

	"github.com/inboardmesh/inboard/outcome"
)

// statusConflict is the one status of OnRetriable4xx ("Envoy router docs").
const statusConflict = 409

// Retryable reports whether a condition of the policy holds for the outcome of
// an attempt. It does not count attempts; [Sequence.Next] does.
//
// Never retried, whatever the policy says, is what the mesh refused or answered
// itself (Overflow, NoEndpoint, Local: gRFC A32 and A33), what the caller ended
// (Canceled, BodyFailure) and a call that is out of time (Timeout).
//
// HTTP conditions look at the HTTP status. A gRPC answer has none (Status 0;
// at Envoy it would be 200), so OnGatewayError and On5xx do not hold for an
// answered UNAVAILABLE: OnGRPCUnavailable does. They do hold for an HTTP error
// page that came in place of a gRPC answer, if Status tells it, and the
// conditions for attempts without a response hold for gRPC as for HTTP.
//
// gRPC conditions look at the gRPC status: for a gRPC call at Outcome.Code, also
// when it was made up locally for a broken connection, as gRPC clients do (gRFC
// A6); for an HTTP call at the response header grpc-status, as Envoy does.
//
// A response with the header x-envoy-ratelimited is retried if and only if the
// policy has OnEnvoyRateLimited.
//
// A nil Policy retries nothing.
func (p *Policy) Retryable(o *outcome.Outcome) bool {
	if p == nil {
		return false
	}
	var holds Conditions
	switch o.Kind {
	case outcome.Response:
		if o.HeaderValue("x-envoy-ratelimited") != "" {
			return p.On&OnEnvoyRateLimited != 0
		}
		holds = p.statusConditions(o.Status)
		if o.RetriableHeader {
			holds |= OnRetriableHeaders
		}
	case outcome.ConnectFailure:
		holds = OnConnectFailure | OnResetBeforeRequest | unanswered
	case outcome.RefusedStream:
		holds = OnRefusedStream | unanswered
	case outcome.ResetBeforeRequest:
		holds = OnResetBeforeRequest | unanswered
	case outcome.Reset, outcome.PerTryTimeout:
		holds = unanswered
		if !o.Sent {
			holds |= OnResetBeforeRequest
		}
	default:
		return false
	}
	if p.On&grpcConditions != 0 {
		holds |= grpcCondition(o)
	}
	return p.On&holds != 0
}

// unanswered is what holds for every attempt without a response.
const unanswered = On5xx | OnGatewayError | OnReset

const grpcConditions = OnGRPCCancelled | OnGRPCDeadlineExceeded | OnGRPCInternal | OnGRPCResourceExhausted | OnGRPCUnavailable

func (p *Policy) statusConditions(status int) Conditions {
	var holds Conditions
	if status >= 500 && status <= 599 {
		holds |= On5xx
	}
	if status >= 502 && status <= 504 {
		holds |= OnGatewayError
	}
	if status == statusConflict {
		holds |= OnRetriable4xx
	}
	if p.On&OnRetriableStatusCodes != 0 && slices.Contains(p.RetriableStatusCodes, status) {
		holds |= OnRetriableStatusCodes
	}
	return holds
}

// grpcCondition returns the condition that the gRPC status of an attempt
// fulfils, if any.
func grpcCondition(o *outcome.Outcome) Conditions {
	code := o.Code
	if !o.GRPC {
		text := o.HeaderValue("grpc-status")
		if text == "" {
			return 0 // as nearly always: an error of strconv would be an allocation
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0
		}
		code = uint32(n)
	}
	switch code {
	case 1:
		return OnGRPCCancelled
	case 4:
		return OnGRPCDeadlineExceeded
	case 8:
		return OnGRPCResourceExhausted
	case 13:
		return OnGRPCInternal
	case 14:
		return OnGRPCUnavailable
	}
	return 0
}

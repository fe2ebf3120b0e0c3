package relay

import (
	"errors"

	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/discovery"
)

// fault writes a fault as far as grpc-go injects it. A fault for some calls only
// is not injected at all, as grpc-go would inject it in all of them.
func (e *encoder) fault(where string, f *discovery.Fault) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if err := conditional(f); err != nil {
		e.leave(where, "the fault is not injected: %v", err)
		return out
	}
	if f.RateLimit != nil {
		e.leave(where, "responses are not slowed down by the fault filter")
	}
	if f.MaxActive > 0 {
		out.MaxActiveFaults = wrapperspb.UInt32(f.MaxActive)
	}
	if d := f.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{Percentage: percent(d.PerMillion, d.Unit)}
		if d.FromHeader {
			out.Delay.FaultDelaySecifier = &commonfaultv3.FaultDelay_HeaderDelay_{HeaderDelay: &commonfaultv3.FaultDelay_HeaderDelay{}}
		} else {
			out.Delay.FaultDelaySecifier = &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(d.Fixed)}
		}
	}
	if a := f.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{Percentage: percent(a.PerMillion, a.Unit)}
		switch {
		case a.FromHeader:
			out.Abort.ErrorType = &faultv3.FaultAbort_HeaderAbort_{HeaderAbort: &faultv3.FaultAbort_HeaderAbort{}}
		case a.IsGRPC:
			out.Abort.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: a.GRPCStatus}
		default:
			out.Abort.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(a.HTTPStatus)}
		}
	}
	return out
}

// conditional reports by what a fault is limited to some calls.
func conditional(f *discovery.Fault) error {
	switch {
	case len(f.Headers) > 0:
		return errors.New("it depends on headers")
	case f.UpstreamCluster != "":
		return errors.New("it depends on the cluster")
	case len(f.DownstreamNodes) > 0:
		return errors.New("it depends on the caller's node")
	}
	return nil
}

// idle reports whether a fault filter does nothing.
func idle(f *discovery.Fault) bool { return f.Delay == nil && f.Abort == nil && f.RateLimit == nil }

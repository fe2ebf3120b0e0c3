package istio

import (
	"math"
	"strconv"

	faultcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	networking "istio.io/api/networking/v1alpha3"
)

// fault translates fault injection into the configuration of the fault filter
// for one route. Without a percentage nothing is injected, as in Istio.
func fault(in *networking.HTTPFaultInjection, a at) *anypb.Any {
	if in == nil {
		return nil
	}
	if in.Delay == nil && in.Abort == nil {
		a.errorf("needs delay or abort")
		return nil
	}
	out := &faultv3.HTTPFault{Delay: faultDelay(in.Delay, a.field("delay")), Abort: faultAbort(in.Abort, a.field("abort"))}
	packed, err := pack(out)
	if err != nil {
		a.doubt(err)
		return nil
	}
	return packed
}

func faultDelay(in *networking.HTTPFaultInjection_Delay, a at) *faultcommonv3.FaultDelay {
	if in == nil {
		return nil
	}
	if in.GetFixedDelay() == nil {
		a.field("fixedDelay").errorf("is required")
		return nil
	}
	checkDuration(in.GetFixedDelay(), a.field("fixedDelay"))
	share := percentage(in.Percentage, a.field("percentage"))
	if share == nil {
		share = &typev3.FractionalPercent{}
		old := a.field("percent")
		if percent := in.Percent; percent < 0 || percent > 100 { //nolint:staticcheck // the deprecated field is still in use
			old.errorf("%d is not in 0..100", percent)
		} else {
			share.Numerator = uint32(percent)
		}
	} else if a.field("percent").written() {
		a.field("percent").refuse("cannot be set together with %q", "percentage")
	}
	return &faultcommonv3.FaultDelay{
		FaultDelaySecifier: &faultcommonv3.FaultDelay_FixedDelay{FixedDelay: in.GetFixedDelay()},
		Percentage:         share,
	}
}

func faultAbort(in *networking.HTTPFaultInjection_Abort, a at) *faultv3.FaultAbort {
	if in == nil {
		return nil
	}
	out := &faultv3.FaultAbort{Percentage: percentage(in.Percentage, a.field("percentage"))}
	switch e := in.ErrorType.(type) {
	case *networking.HTTPFaultInjection_Abort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			a.field("httpStatus").errorf("%d is not in 200..599", e.HttpStatus)
			return nil
		}
		out.ErrorType = &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(e.HttpStatus)}
	case *networking.HTTPFaultInjection_Abort_GrpcStatus:
		var status codes.Code
		if err := status.UnmarshalJSON([]byte(strconv.Quote(e.GrpcStatus))); err != nil {
			a.field("grpcStatus").errorf("%q is not the name of a gRPC status, like UNAVAILABLE", e.GrpcStatus)
			return nil
		}
		out.ErrorType = &faultv3.FaultAbort_GrpcStatus{GrpcStatus: uint32(status)}
	default:
		a.errorf("needs httpStatus or grpcStatus")
		return nil
	}
	return out
}

// percentage is a share in millionths, the finest that Envoy knows.
func percentage(p *networking.Percent, a at) *typev3.FractionalPercent {
	if p == nil {
		return nil
	}
	if p.Value < 0 || p.Value > 100 || p.Value > 0 && p.Value < 0.0001 {
		a.field("value").errorf("%v is neither 0 nor in 0.0001..100", p.Value)
		return nil
	}
	return &typev3.FractionalPercent{
		Numerator:   uint32(math.Round(p.Value * 10000)),
		Denominator: typev3.FractionalPercent_MILLION,
	}
}

package decode

import (
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var faultFields = []messageFields{
	{
		message: (*faultv3.HTTPFault)(nil),
		read:    "delay abort headers max_active_faults response_rate_limit upstream_cluster downstream_nodes",
		// There is no runtime that could override anything; the rest is for
		// metrics and access logs.
		harmless: "delay_percent_runtime abort_percent_runtime delay_duration_runtime " +
			"abort_http_status_runtime max_active_faults_runtime response_rate_limit_percent_runtime " +
			"abort_grpc_status_runtime disable_downstream_cluster_stats filter_metadata",
	},
	{message: (*commonfaultv3.FaultDelay)(nil), read: "fixed_delay header_delay percentage"},
	{message: (*commonfaultv3.FaultDelay_HeaderDelay)(nil)},
	{message: (*commonfaultv3.FaultRateLimit)(nil), read: "fixed_limit header_limit percentage"},
	{message: (*commonfaultv3.FaultRateLimit_FixedLimit)(nil), read: "limit_kbps"},
	{message: (*commonfaultv3.FaultRateLimit_HeaderLimit)(nil)},
	{message: (*faultv3.FaultAbort)(nil), read: "http_status grpc_status header_abort percentage"},
	{message: (*faultv3.FaultAbort_HeaderAbort)(nil)},
}

// maxGRPCCode is UNAUTHENTICATED.
const maxGRPCCode = 16

// fault decodes the configuration of the fault filter (gRFC A33).
func (d *decoder) fault(at path, m *faultv3.HTTPFault) *discovery.Fault {
	f := &discovery.Fault{
		Headers:   d.headerMatches(at, "headers", m.GetHeaders()),
		MaxActive: m.GetMaxActiveFaults().GetValue(),

		UpstreamCluster: m.GetUpstreamCluster(), DownstreamNodes: m.GetDownstreamNodes(),
	}
	if delay := m.GetDelay(); delay != nil {
		f.Delay = &discovery.FaultDelay{
			Fixed:      d.duration(at.field("delay").field("fixed_delay"), delay.GetFixedDelay()),
			FromHeader: delay.GetHeaderDelay() != nil,
			PerMillion: perMillion(delay.GetPercentage()),
		}
		if f.Delay.FromHeader {
			f.Delay.Unit = unit(delay.GetPercentage())
		}
	}
	if abort := m.GetAbort(); abort != nil {
		f.Abort = d.faultAbort(at.field("abort"), abort)
	}
	if limit := m.GetResponseRateLimit(); limit != nil {
		f.RateLimit = &discovery.FaultRateLimit{
			KiBPerSecond: limit.GetFixedLimit().GetLimitKbps(),
			FromHeader:   limit.GetHeaderLimit() != nil,
			PerMillion:   perMillion(limit.GetPercentage()),
		}
		if f.RateLimit.FromHeader {
			f.RateLimit.Unit = unit(limit.GetPercentage())
		}
	}
	if m.GetMaxActiveFaults() != nil && f.MaxActive == 0 {
		// In the model 0 means no cap; here it means that no fault is allowed.
		f.Delay, f.Abort, f.RateLimit = nil, nil, nil
	}
	return f
}

// unit is the unit of a fraction, in millionths.
func unit(f *typev3.FractionalPercent) uint32 {
	return perMillion(&typev3.FractionalPercent{Numerator: 1, Denominator: f.GetDenominator()})
}

func (d *decoder) faultAbort(at path, m *faultv3.FaultAbort) *discovery.FaultAbort {
	a := &discovery.FaultAbort{PerMillion: perMillion(m.GetPercentage())}
	switch kind := m.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		a.HTTPStatus = int(kind.HttpStatus)
	case *faultv3.FaultAbort_HeaderAbort_:
		a.FromHeader, a.Unit = true, unit(m.GetPercentage())
	case *faultv3.FaultAbort_GrpcStatus:
		a.IsGRPC, a.GRPCStatus = true, kind.GrpcStatus
		if kind.GrpcStatus > maxGRPCCode {
			d.refusef(at.field("grpc_status"), "%d is not a gRPC status code: must be between 0 and %d", kind.GrpcStatus, maxGRPCCode)
		}
	}
	return a
}

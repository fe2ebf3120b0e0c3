package decode

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// legacyTimeouts decodes max_grpc_timeout and grpc_timeout_offset, which
// max_stream_duration replaced and istiod still sends to sidecars. A gRPC call takes
// its limit from max_grpc_timeout instead of timeout; 0 is no limit.
//
//nolint:staticcheck // the deprecated fields are still in use
func (t *tableDecoder) legacyTimeouts(at path, m *routev3.RouteAction, f *discovery.Forward) {
	if limit := t.optionalDuration(at.field("max_grpc_timeout"), m.GetMaxGrpcTimeout()); limit != nil {
		// Whatever else limits a call still does.
		for _, other := range []*time.Duration{f.GRPCTimeoutHeaderMax, f.MaxStreamDuration} {
			if other != nil && *other > 0 && (*limit == 0 || *other < *limit) {
				limit = other
			}
		}
		f.GRPCTimeoutHeaderMax = limit
	}
	if offset := t.duration(at.field("grpc_timeout_offset"), m.GetGrpcTimeoutOffset()); offset > f.GRPCTimeoutHeaderOffset {
		f.GRPCTimeoutHeaderOffset = offset
	}
}

// legacyRedirect is the policy that internal_redirect_action and
// max_internal_redirects stand for, which internal_redirect_policy replaced; nil for
// none.
//
//nolint:staticcheck // the deprecated fields are still in use
func legacyRedirect(m *routev3.RouteAction) *routev3.InternalRedirectPolicy {
	if m.GetInternalRedirectAction() != routev3.RouteAction_HANDLE_INTERNAL_REDIRECT {
		return nil
	}
	return &routev3.InternalRedirectPolicy{MaxInternalRedirects: m.GetMaxInternalRedirects()}
}

package mesh

import (
	"context"

	"github.com/inboardmesh/inboard/internal/pipeline"
)

// CallOptions is what an application wants of one call, over HTTP or gRPC; see
// [WithCall]. Every zero value leaves the matter to the control plane.
//
// The control plane's configuration is the ceiling. Timeout, PerTryTimeout and
// MaxRetries can only take away from what the route gives: a route without a
// retry policy retries nothing, whatever is asked for. Conditions for retries
// are added to the route's, since the application knows what may be repeated.
// Hedges count as retries, and all count in the cluster's limits and budget.
type CallOptions = pipeline.CallOptions

// WithCall returns a context whose calls through any mesh have these options, in
// place of those that ctx has: pass it to one request or to one call of a gRPC
// stub. It must not be changed afterwards. Calls that pass round the mesh take no
// notice.
//
// An application that cannot change the context of its call says the same, but
// for the locality, the hash key, the priority and the delay of a hedge, with the
// request headers of Envoy's router: x-envoy-retry-on, x-envoy-retry-grpc-on,
// x-envoy-max-retries, x-envoy-retriable-status-codes,
// x-envoy-retriable-header-names, x-envoy-hedge-on-per-try-timeout,
// x-envoy-upstream-rq-timeout-ms and x-envoy-upstream-rq-per-try-timeout-ms. They
// override the context's options and are not sent on; a server of the mesh
// removes them from what arrives, so that no caller controls what is called on
// its behalf.
func WithCall(ctx context.Context, options CallOptions) context.Context {
	return pipeline.WithOptions(ctx, options)
}

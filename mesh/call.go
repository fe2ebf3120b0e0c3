package mesh

import (
	"context"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/retry"
)

// CallOptions is what an application wants of one call, over HTTP or gRPC; see
// [WithCall]. Every zero value leaves the matter to the control plane.
//
// The control plane's configuration is the ceiling. Timeout, PerTryTimeout and
// MaxRetries can only take away from what the route gives: a route without a
// retry policy retries nothing, whatever is asked for. Conditions for retries
// are added to the route's, since the application knows what may be repeated.
// Hedges count as retries, and all count in the cluster's limits and budget.
type CallOptions struct {
	// Timeout bounds the whole call, as a context's deadline does: from its beginning,
	// with the wait for a configuration, injected delays, all attempts, the redirects
	// that the mesh follows, and the response. The route's timeout, which as with Envoy
	// begins behind the client's filters and with each redirect anew, and the context's
	// deadline apply beside it. A negative one has passed already, as what is left of a
	// deadline that has: the call fails, and nothing is sent.
	Timeout time.Duration
	// PerTryTimeout ends one attempt. It can only shorten the route's. A negative one
	// is as 0.
	PerTryTimeout time.Duration
	// MinTime refuses an attempt for which less than this is left of the call's
	// time: what cannot finish is better not begun. The larger of it and the
	// route's applies.
	MinTime time.Duration
	// MaxRetries is how many attempts may follow the first; nil leaves that to
	// the route, whose policy is the most there can be. A route without a policy
	// allows none.
	MaxRetries *uint32
	// RetryOn are further conditions for a retry. The application knows better
	// than the control plane whether this call may be repeated.
	RetryOn retry.Conditions
	// RetriableStatusCodes are further statuses for the condition
	// [retry.OnRetriableStatusCodes].
	RetriableStatusCodes []int
	// RetriableHeaderNames are further response headers for the condition
	// [retry.OnRetriableHeaders]: it holds if one of them is there.
	RetriableHeaderNames []string
	// Hedge replaces the route's hedging. The attempts that it adds are retries:
	// they are bounded as those are. What must not be repeated is not hedged.
	Hedge *retry.Hedge
	// HashKey takes the place of what the route's hash policy would hash, for
	// clusters whose balancer hashes; "" leaves it to the policy.
	HashKey string
	// Locality is preferred as long as it has an endpoint that may be used and was
	// not tried. What is empty in it stands for any: a region alone prefers all of
	// its zones. The zero value prefers none.
	Locality balancer.Locality
	// Priority is [discovery.PriorityHigh] to count against the limits of that
	// priority; the zero value leaves it to the route.
	Priority discovery.RoutingPriority
}

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
// go before the context's options and are not sent on, but the times apply beside them:
// the shortest ends the call. 0 is none, and leaves the others. A header's timeout is
// counted as Envoy does, from where the route's begins. A server of the mesh
// removes them from what arrives, so that no caller controls what is called on
// its behalf.
func WithCall(ctx context.Context, options CallOptions) context.Context {
	return pipeline.WithOptions(ctx, pipeline.CallOptions(options))
}

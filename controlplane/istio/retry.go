package istio

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networking "istio.io/api/networking/v1alpha3"
)

// Istio's default policy, for routes that give none. It retries only what did
// not reach the application: Istio 1.24 took 503 out of it, as unsafe.
const (
	defaultRetries   = 2
	defaultRetryOn   = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
	hostAttempts     = 5
	previousHosts    = "envoy.retry_host_predicates.previous_hosts"
	statusConditions = "retriable-status-codes"
)

// retryConditions are the conditions that Istio knows.
var retryConditions = []string{
	"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure",
	"retriable-4xx", "refused-stream", statusConditions, "envoy-ratelimited",
	"retriable-headers", "http3-post-connect-failure",
	"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}

// neverHold are those that hold for no request, and why.
var neverHold = map[string]string{
	"retriable-headers":          "a VirtualService cannot say which headers",
	"http3-post-connect-failure": "the mesh does not speak HTTP/3",
}

// retryPolicy translates a retry policy; nil is Istio's default, and one of 0
// attempts is no policy.
func retryPolicy(in *networking.HTTPRetry, a at) *routev3.RetryPolicy {
	out := &routev3.RetryPolicy{
		NumRetries:                    wrapperspb.UInt32(defaultRetries),
		RetryOn:                       defaultRetryOn,
		RetryHostPredicate:            avoidPreviousHosts(),
		HostSelectionRetryMaxAttempts: hostAttempts,
	}
	if in == nil {
		return out
	}
	checkDuration(in.PerTryTimeout, a.field("perTryTimeout"))
	checkDuration(in.Backoff, a.field("backoff"))
	if in.Attempts < 0 {
		a.field("attempts").errorf("%d is negative", in.Attempts)
		return nil
	}
	if in.RetryOn != "" {
		out.RetryOn, out.RetriableStatusCodes = retryOn(in.RetryOn, a.field("retryOn"))
	}
	if in.Attempts == 0 {
		for _, name := range []string{"perTryTimeout", "retryOn", "retryIgnorePreviousHosts", "backoff", "retryRemoteLocalities"} {
			if a.field(name).written() {
				a.field(name).refuse("has no effect with 0 attempts, the default: set attempts")
			}
		}
		return nil
	}
	out.NumRetries.Value = uint32(in.Attempts)
	out.PerTryTimeout = in.PerTryTimeout
	if ignore := in.RetryIgnorePreviousHosts; ignore != nil && !ignore.Value {
		out.RetryHostPredicate = nil
	}
	if in.RetryRemoteLocalities.GetValue() {
		out.RetryPriority = otherPriorities()
	}
	if in.Backoff != nil {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: in.Backoff}
	}
	return out
}

// avoidPreviousHosts is the predicate that lets a retry try another host. An
// empty message needs no packing.
func avoidPreviousHosts() []*routev3.RetryPolicy_RetryHostPredicate {
	empty := new(previoushostsv3.PreviousHostsPredicate)
	return []*routev3.RetryPolicy_RetryHostPredicate{{
		Name: previousHosts,
		ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: &anypb.Any{
			TypeUrl: "type.googleapis.com/" + string(empty.ProtoReflect().Descriptor().FullName()),
		}},
	}}
}

// otherPriorities lets retries go to the localities of other priorities, as
// istiod does: after every second attempt.
func otherPriorities() *routev3.RetryPolicy_RetryPriority {
	config := &prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2}
	packed, err := proto.MarshalOptions{Deterministic: true}.Marshal(config)
	if err != nil {
		return nil // a message of one number can always be written
	}
	return &routev3.RetryPolicy_RetryPriority{
		Name: "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: &anypb.Any{
			TypeUrl: "type.googleapis.com/" + string(config.ProtoReflect().Descriptor().FullName()), Value: packed,
		}},
	}
}

// retryOn splits conditions from status codes, which Istio allows to mix.
func retryOn(text string, a at) (string, []uint32) {
	var conditions []string
	var codes []uint32
	for part := range strings.SplitSeq(text, ",") {
		if code, err := strconv.Atoi(part); err == nil && http.StatusText(code) != "" {
			codes = append(codes, uint32(code))
			continue
		}
		if !slices.Contains(retryConditions, part) {
			a.errorf("%q is neither a status code nor one of %s", part, strings.Join(retryConditions, ", "))
		}
		if why := neverHold[part]; why != "" {
			a.warnf(lintIneffectiveRetry, "%q repeats nothing: %s", part, why)
		}
		conditions = append(conditions, part)
	}
	if len(codes) > 0 && !slices.Contains(conditions, statusConditions) {
		conditions = append(conditions, statusConditions)
	}
	return strings.Join(conditions, ","), codes
}

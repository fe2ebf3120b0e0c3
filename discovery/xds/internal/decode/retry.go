package decode

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/inboardmesh/inboard/retry"
)

var retryFields = []messageFields{
	{
		message: (*routev3.RetryPolicy)(nil),
		read: "retry_on num_retries per_try_timeout retry_host_predicate " +
			"retriable_status_codes retry_back_off",
		// 0 s is none, which is the default.
		zero: "per_try_idle_timeout",
		// The previous_hosts predicate is exact here: nothing is selected more
		// than once.
		harmless: "host_selection_retry_max_attempts",
	},
	{message: (*routev3.RetryPolicy_RetryHostPredicate)(nil), read: "name typed_config"},
	{message: (*routev3.RetryPolicy_RetryBackOff)(nil), read: "base_interval max_interval"},
	{message: (*previoushostsv3.PreviousHostsPredicate)(nil)},
}

// previousHostsName is the name by which Envoy finds the predicate when it has
// no typed configuration.
const previousHostsName = "envoy.retry_host_predicates.previous_hosts"

// minBackoff is the least base_interval: Envoy rounds shorter ones up.
const minBackoff = time.Millisecond

// retryPolicy decodes a RetryPolicy; nil without one.
func (d *decoder) retryPolicy(at path, m *routev3.RetryPolicy) *retry.Policy {
	if m == nil {
		return nil
	}
	on, err := retry.ParseConditions(m.GetRetryOn())
	if err != nil {
		d.refusef(at.field("retry_on"), "%w", err)
	}
	p := &retry.Policy{
		MaxRetries:           1,
		On:                   on,
		PerTryTimeout:        d.duration(at.field("per_try_timeout"), m.GetPerTryTimeout()),
		Backoff:              d.retryBackoff(at.field("retry_back_off"), m.GetRetryBackOff()),
		RetriableStatusCodes: d.retriableStatusCodes(at, m.GetRetriableStatusCodes()),
	}
	if n := m.GetNumRetries(); n != nil {
		p.MaxRetries = n.GetValue()
	}
	for i, predicate := range m.GetRetryHostPredicate() {
		d.previousHosts(at.element("retry_host_predicate", i), predicate)
		p.AvoidPreviousHosts = true
	}
	return p
}

func (d *decoder) retriableStatusCodes(at path, codes []uint32) []int {
	if len(codes) == 0 {
		return nil
	}
	statuses := make([]int, len(codes))
	for i, code := range codes {
		if code < 100 || code > 599 {
			d.refusef(at.element("retriable_status_codes", i), "%d is not an HTTP status: must be between 100 and 599", code)
		}
		statuses[i] = int(code)
	}
	return statuses
}

// retryBackoff decodes retry_back_off, of which Envoy's constraints have
// checked that the intervals are positive.
func (d *decoder) retryBackoff(at path, m *routev3.RetryPolicy_RetryBackOff) retry.Backoff {
	if m == nil {
		return retry.Backoff{}
	}
	b := retry.Backoff{
		Base: max(d.duration(at.field("base_interval"), m.GetBaseInterval()), minBackoff),
		Max:  d.duration(at.field("max_interval"), m.GetMaxInterval()),
	}
	if m.GetMaxInterval() != nil {
		b.Max = max(b.Max, minBackoff)
		if b.Max < b.Base {
			d.refusef(at.field("max_interval"), "%v is less than base_interval %v", b.Max, b.Base)
		}
	}
	return b
}

// previousHosts checks that a retry_host_predicate is the only one supported.
func (d *decoder) previousHosts(at path, m *routev3.RetryPolicy_RetryHostPredicate) {
	if m.GetTypedConfig() != nil {
		d.unpack(at.field("typed_config"), m.GetTypedConfig(), &previoushostsv3.PreviousHostsPredicate{})
		return
	}
	if m.GetName() != previousHostsName {
		d.refusef(at.field("name"), "%q is not supported: must be %q", m.GetName(), previousHostsName)
	}
}

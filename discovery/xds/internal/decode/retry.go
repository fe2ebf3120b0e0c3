package decode

import (
	"maps"
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	omitcanaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	omitmetadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_host_metadata/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

var retryFields = []messageFields{
	{
		message: (*routev3.RetryPolicy)(nil),
		read: "retry_on num_retries per_try_timeout per_try_idle_timeout retry_priority retry_host_predicate " +
			"retriable_status_codes retry_back_off rate_limited_retry_back_off " +
			"retriable_headers retriable_request_headers",
		// The host predicates are exact here: nothing is selected more than once.
		harmless: "host_selection_retry_max_attempts",
		instead: map[string]string{
			"retry_options_predicates": "no predicate of that kind is known",
			"refresh_cluster_on_retry": "all attempts of a call go to one cluster",
		},
	},
	{message: (*routev3.RetryPolicy_RetryHostPredicate)(nil), read: "name typed_config"},
	// The type of the configuration says which one it is.
	{message: (*routev3.RetryPolicy_RetryPriority)(nil), read: "typed_config", harmless: "name"},
	{message: (*routev3.RetryPolicy_RetryBackOff)(nil), read: "base_interval max_interval"},
	{message: (*routev3.RetryPolicy_RateLimitedRetryBackOff)(nil), read: "reset_headers max_interval"},
	{message: (*routev3.RetryPolicy_ResetHeader)(nil), read: "name format"},
	{
		message: (*routev3.HedgePolicy)(nil),
		read:    "initial_requests hedge_on_per_try_timeout",
		instead: map[string]string{"additional_request_chance": "no Envoy implements it"},
	},
	{message: (*previoushostsv3.PreviousHostsPredicate)(nil)},
	{message: (*omitcanaryv3.OmitCanaryHostsPredicate)(nil)},
	{message: (*omitmetadatav3.OmitHostMetadataConfig)(nil), read: "metadata_match"},
	{message: (*prioritiesv3.PreviousPrioritiesConfig)(nil), read: "update_frequency"},
}

// The names by which Envoy finds the predicates that need no configuration when
// they have none.
const (
	previousHostsName = "envoy.retry_host_predicates.previous_hosts"
	omitCanaryName    = "envoy.retry_host_predicates.omit_canary_hosts"
)

const (
	// minBackoff is the least base_interval: Envoy rounds shorter ones up.
	minBackoff = time.Millisecond
	// defaultResetLimit is Envoy's rate_limited_retry_back_off.max_interval.
	defaultResetLimit = 300 * time.Second
)

// retryPolicy decodes a RetryPolicy, with what it says of headers; nil without
// one.
func (d *decoder) retryPolicy(at path, m *routev3.RetryPolicy) (*retry.Policy, *discovery.RetryHeaders) {
	if m == nil {
		return nil, nil
	}
	on, err := retry.ParseConditions(m.GetRetryOn())
	if err != nil {
		d.refusef(at.field("retry_on"), "%w", err)
	}
	p := &retry.Policy{
		MaxRetries:           1,
		On:                   on,
		PerTryTimeout:        d.duration(at.field("per_try_timeout"), m.GetPerTryTimeout()),
		PerTryIdleTimeout:    d.duration(at.field("per_try_idle_timeout"), m.GetPerTryIdleTimeout()),
		Backoff:              d.retryBackoff(at.field("retry_back_off"), m.GetRetryBackOff()),
		RateLimited:          d.rateLimited(at.field("rate_limited_retry_back_off"), m.GetRateLimitedRetryBackOff()),
		RetriableStatusCodes: d.retriableStatusCodes(at, m.GetRetriableStatusCodes()),
		PriorityUpdates:      d.retryPriority(at.field("retry_priority"), m.GetRetryPriority()),
	}
	if n := m.GetNumRetries(); n != nil {
		p.MaxRetries = n.GetValue()
	}
	for i, predicate := range m.GetRetryHostPredicate() {
		d.hostPredicate(at.element("retry_host_predicate", i), predicate, p)
	}
	headers := &discovery.RetryHeaders{
		Response: d.headerMatches(at, "retriable_headers", m.GetRetriableHeaders()),
		Request:  d.headerMatches(at, "retriable_request_headers", m.GetRetriableRequestHeaders()),
	}
	if headers.Response == nil && headers.Request == nil {
		headers = nil
	}
	return p, headers
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

// rateLimited decodes rate_limited_retry_back_off, of which Envoy's constraints
// have checked that it has headers and a positive limit.
func (d *decoder) rateLimited(at path, m *routev3.RetryPolicy_RateLimitedRetryBackOff) *retry.RateLimited {
	if m == nil {
		return nil
	}
	l := &retry.RateLimited{Max: defaultResetLimit}
	if m.GetMaxInterval() != nil {
		l.Max = d.duration(at.field("max_interval"), m.GetMaxInterval())
	}
	for _, h := range m.GetResetHeaders() {
		l.Headers = append(l.Headers, retry.ResetHeader{
			Name: strings.ToLower(h.GetName()), UnixTime: h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP,
		})
	}
	return l
}

// hostPredicate decodes a retry_host_predicate into p.
func (d *decoder) hostPredicate(at path, m *routev3.RetryPolicy_RetryHostPredicate, p *retry.Policy) {
	config := m.GetTypedConfig()
	in := at.field("typed_config")
	switch {
	case config == nil && m.GetName() == previousHostsName:
		p.AvoidPreviousHosts = true
	case config == nil && m.GetName() == omitCanaryName:
		p.OmitCanary = true
	case config == nil:
		d.refusef(at.field("name"), "%q is not supported without typed_config: use %q or %q", m.GetName(), previousHostsName, omitCanaryName)
	case is(config, (*omitcanaryv3.OmitCanaryHostsPredicate)(nil)):
		p.OmitCanary = d.unpack(in, config, &omitcanaryv3.OmitCanaryHostsPredicate{})
	case is(config, (*omitmetadatav3.OmitHostMetadataConfig)(nil)):
		omit := &omitmetadatav3.OmitHostMetadataConfig{}
		if !d.unpack(in, config, omit) {
			return
		}
		if p.OmitMetadata != nil {
			d.refusef(at, "there is another of this kind: put all values into one, or use one of them")
		}
		p.OmitMetadata = d.omittedMetadata(in.field("metadata_match"), omit)
	default:
		p.AvoidPreviousHosts = d.unpack(in, config, &previoushostsv3.PreviousHostsPredicate{})
	}
}

// lbMetadata is the namespace of metadata for load balancing.
const lbMetadata = "envoy.lb"

// omittedMetadata decodes OmitHostMetadataConfig.metadata_match.
func (d *decoder) omittedMetadata(at path, m *omitmetadatav3.OmitHostMetadataConfig) map[string]string {
	namespaces := m.GetMetadataMatch().GetFilterMetadata()
	values := make(map[string]string)
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		if namespace != lbMetadata {
			d.refusef(at.entry("filter_metadata", namespace), "not supported: use %q", lbMetadata)
			continue
		}
		for key, value := range namespaces[namespace].GetFields() {
			text, ok := metadataText(value)
			if !ok {
				d.refusef(at.entry("filter_metadata", namespace).field(key), "must be a string or a bool: is %s", valueText(value))
			}
			values[key] = text
		}
	}
	if len(values) == 0 {
		d.refusef(at, "must have values of %q: without one it would omit every host", lbMetadata)
	}
	return values
}

// retryPriority decodes a retry_priority: how often the priorities are updated,
// 0 without one.
func (d *decoder) retryPriority(at path, m *routev3.RetryPolicy_RetryPriority) uint32 {
	config := &prioritiesv3.PreviousPrioritiesConfig{}
	if m == nil || !d.unpack(at.field("typed_config"), m.GetTypedConfig(), config) {
		return 0
	}
	return uint32(config.GetUpdateFrequency()) // positive, by Envoy's constraints
}

package decode

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

var preconnectFields = []messageFields{{
	message: (*clusterv3.Cluster_PreconnectPolicy)(nil),
	read:    "per_upstream_preconnect_ratio predictive_preconnect_ratio",
	instead: map[string]string{"preconnect_enabled_metadata": "all endpoints of a cluster are treated alike"},
}}

// maxPreconnectRatio is Envoy's: more would do more harm than good.
const maxPreconnectRatio = 3

// preconnectRatio decodes preconnect_policy. Which endpoint is called next is not
// foreseen: only the one that is called gets connections.
func (d *decoder) preconnectRatio(at path, m *clusterv3.Cluster_PreconnectPolicy) float64 {
	if r := m.GetPredictivePreconnectRatio(); r != nil && r.GetValue() != 1 {
		d.refusef(at.field("predictive_preconnect_ratio"), "not supported: use per_upstream_preconnect_ratio")
	}
	r := m.GetPerUpstreamPreconnectRatio()
	if r == nil {
		return 0
	}
	// The message's own rules let through what is no number.
	if v := r.GetValue(); !(v >= 1 && v <= maxPreconnectRatio) {
		d.refusef(at.field("per_upstream_preconnect_ratio"), "%v is not between 1 and %d", v, maxPreconnectRatio)
	}
	return r.GetValue()
}

package decode

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
)

var mirrorFields = []messageFields{{
	message: (*routev3.RouteAction_RequestMirrorPolicy)(nil),
	read:    "cluster cluster_header runtime_fraction disable_shadow_host_suffix_append host_rewrite_literal",
	// A copy is in no trace, which is what false asks for.
	zero: "trace_sampled",
	instead: map[string]string{
		"request_headers_mutations": "change the headers of the route, which its copies have as well",
	},
}}

// mirrors decodes the request_mirror_policies of a message of one of the three
// levels that have them. The most specific level that has any holds alone.
func (d *decoder) mirrors(at path, list []*routev3.RouteAction_RequestMirrorPolicy) []discovery.Mirror {
	var mirrors []discovery.Mirror
	for i, m := range list {
		in := at.element("request_mirror_policies", i)
		switch {
		case m.GetCluster() == "" && m.GetClusterHeader() == "":
			d.refusef(in.field("cluster"), "must not be empty unless cluster_header is set")
		case m.GetCluster() != "" && m.GetClusterHeader() != "":
			d.refusef(in.field("cluster_header"), "must not be set beside cluster")
		}
		mirror := discovery.Mirror{
			Cluster:    m.GetCluster(),
			Header:     strings.ToLower(m.GetClusterHeader()),
			PerMillion: always,
			Host:       d.hostRewrite(in.field("host_rewrite_literal"), m.GetHostRewriteLiteral()),
			KeepHost:   m.GetDisableShadowHostSuffixAppend(),
		}
		if f := m.GetRuntimeFraction(); f != nil {
			mirror.PerMillion = perMillion(f.GetDefaultValue())
		}
		if mirror.PerMillion > 0 {
			mirrors = append(mirrors, mirror)
		}
	}
	return mirrors
}

// always is a share of a million that is the whole.
const always = 1_000_000

package decode

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// loadReports decodes lrs_server, nil without one. The load goes to the server that
// the cluster came from, and to no other (gRFC A27).
func (d *decoder) loadReports(at path, m *clusterv3.Cluster) *discovery.LoadReports {
	if m.GetLrsServer() == nil {
		return nil // nobody asks for the metrics
	}
	if m.GetLrsServer().GetSelf() == nil {
		d.refusef(at.field("lrs_server"), "must be self: load is reported to the server that sends the cluster")
	}
	reports := &discovery.LoadReports{}
	for i, name := range m.GetLrsReportEndpointMetrics() {
		switch {
		case name == "cpu_utilization", name == "mem_utilization", name == "application_utilization":
		case strings.HasPrefix(name, "utilization."), strings.HasPrefix(name, "named_metrics."):
		default:
			// gRFC A85: names that are not known are ignored, for later ones.
			continue
		}
		if len(reports.Metrics) == maxLoadMetrics {
			d.refusef(at.element("lrs_report_endpoint_metrics", i), "more than %d metrics", maxLoadMetrics)
			break
		}
		reports.Metrics = append(reports.Metrics, name)
	}
	return reports
}

// maxLoadMetrics bounds what is looked for in each response.
const maxLoadMetrics = 100

package grpcmesh

import (
	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/orca"

	meshbalancer "github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// findReport looks for an endpoint's load report in the trailers of a call (gRFC
// A51).
func findReport(endpoint *upstream.Endpoint, trailer metadata.MD) {
	if endpoint == nil || len(trailer) == 0 || !endpoint.TakesReports() {
		return
	}
	endpoint.FindReport(header(trailer).Get, true)
}

// reports is the out-of-band load reports of one endpoint.
type reports struct{ endpoint *upstream.Endpoint }

var _ orca.OOBListener = reports{}

// OnLoadReport takes over a report.
func (r reports) OnLoadReport(m *orcav3.OrcaLoadReport) {
	r.endpoint.ReportLoad(&meshbalancer.LoadReport{
		CPU: m.GetCpuUtilization(), Memory: m.GetMemUtilization(), Application: m.GetApplicationUtilization(),
		QPS: m.GetRpsFractional(), EPS: m.GetEps(), Named: m.GetNamedMetrics(), Utilization: m.GetUtilization(),
	})
}

// followReports asks a connected endpoint for out-of-band reports, if its cluster
// wants them. They end with the connection.
func followReports(endpoint *upstream.Endpoint, sc balancer.SubConn) {
	config := endpoint.Cluster().Config()
	if config == nil || config.Balancer.Policy != meshbalancer.ClientWeighted || !config.Balancer.ClientWeighted.OutOfBand {
		return
	}
	_ = orca.RegisterOOBListener(sc, reports{endpoint}, orca.OOBListenerOptions{ReportInterval: config.Balancer.ClientWeighted.Reports()})
}

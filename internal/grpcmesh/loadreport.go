package grpcmesh

import (
	"time"

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

// reporting is whether the endpoint of a sub-connection is asked for out-of-band
// reports. Nothing but what gRPC calls of a policy touches it, one after the other.
type reporting struct {
	every time.Duration // 0 while it is not asked
	stop  func()
}

// follow asks a connected endpoint for out-of-band reports, if its cluster wants them
// now, or does not ask any more. The requests end with the connection, too.
func (r *reporting) follow(endpoint *upstream.Endpoint, sc balancer.SubConn) {
	every := reportsEvery(endpoint)
	if every == r.every {
		return
	}
	r.end()
	if every > 0 {
		r.every = every
		r.stop = orca.RegisterOOBListener(sc, reports{endpoint}, orca.OOBListenerOptions{ReportInterval: every})
	}
}

func (r *reporting) end() {
	if r.stop != nil {
		r.stop()
	}
	*r = reporting{}
}

// reportsEvery is how often an endpoint is to report out of band; 0 is not at all.
func reportsEvery(endpoint *upstream.Endpoint) time.Duration {
	config := endpoint.Cluster().Config()
	if config == nil || config.Balancer.Policy != meshbalancer.ClientWeighted || !config.Balancer.ClientWeighted.OutOfBand {
		return 0
	}
	return config.Balancer.ClientWeighted.Reports()
}

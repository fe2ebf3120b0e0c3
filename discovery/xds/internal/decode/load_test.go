package decode

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestX104_WhoseLoadIsReported(t *testing.T) {
	t.Parallel()
	if got := decodeCluster(t, clusterWith(`"lrsReportEndpointMetrics": ["cpu_utilization"]`)).LoadReports; got != nil {
		t.Errorf("load reports %+v, although no server asks", got)
	}
	got := decodeCluster(t, clusterWith(`"lrsServer": {"self": {}}, "lrsReportEndpointMetrics": ["cpu_utilization", "named_metrics.*", "utilization.gpu", "from_the_future"]`)).LoadReports
	if got == nil || !slices.Equal(got.Metrics, []string{"cpu_utilization", "named_metrics.*", "utilization.gpu"}) {
		t.Errorf("load reports %+v", got)
	}
	var many []string
	for i := range maxLoadMetrics + 1 {
		many = append(many, fmt.Sprintf(`"named_metrics.%d"`, i))
	}
	wantClusterErrors(t, []clusterCase{
		{"another server", clusterWith(`"lrsServer": {"ads": {}}`), []string{"lrs_server: must be self: load is reported to the server that sends the cluster"}},
		{
			"too many metrics", clusterWith(`"lrsServer": {"self": {}}, "lrsReportEndpointMetrics": [` + strings.Join(many, ",") + `]`),
			[]string{"lrs_report_endpoint_metrics[100]: more than 100 metrics"},
		},
	})
}

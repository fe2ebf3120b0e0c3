package mesh_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	orcav3 "github.com/cncf/xds/go/xds/data/orca/v3"
	orcaservicev3 "github.com/cncf/xds/go/xds/service/orca/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// reportingService sends load reports as often as it is asked for, while it is.
type reportingService struct {
	orcaservicev3.UnimplementedOpenRcaServiceServer

	utilization float64
	streams     *atomic.Int64
	every       *atomic.Int64 // of the last stream
}

func (s reportingService) StreamCoreMetrics(req *orcaservicev3.OrcaLoadReportRequest, stream grpc.ServerStreamingServer[orcav3.OrcaLoadReport]) error {
	s.streams.Add(1)
	defer s.streams.Add(-1)
	every := req.GetReportInterval().AsDuration()
	s.every.Store(int64(every))
	for {
		if err := stream.Send(&orcav3.OrcaLoadReport{RpsFractional: 100, ApplicationUtilization: s.utilization}); err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// BL8: whoever is connected is asked for reports, in another rhythm, or not any more,
// as the cluster says now.
func TestBL8_ReportsOutOfBandFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	const weighted = `"loadBalancingPolicy": {"policies": [{"typedExtensionConfig": {"name": "w", "typedConfig": {
		"@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
		"blackoutPeriod": "1s", "weightExpirationPeriod": "30s" %s}}}]}`
	outOfBand := func(every string) string {
		return fmt.Sprintf(weighted, `, "enableOobLoadReport": true, "oobReportingPeriod": "`+every+`"`)
	}
	even, byLoad := [3]int64{233, 233, 233}, [3]int64{400, 200, 100}
	synctest.Test(t, func(t *testing.T) {
		g := balancingGround(t, `"lbPolicy": "ROUND_ROBIN"`, 3)
		var streams, every atomic.Int64
		payments := g.counting(3, func(number int, s *grpc.Server) {
			orcaservicev3.RegisterOpenRcaServiceServer(s, reportingService{
				utilization: []float64{0.2, 0.4, 0.8}[number-1], streams: &streams, every: &every,
			})
		})
		for _, step := range []struct {
			name, fields string
			streams      int64
			every        time.Duration
			want         [3]int64
		}{
			{"round robin", `"lbPolicy": "ROUND_ROBIN"`, 0, 0, even},
			{"out of band", outOfBand("10s"), 3, 10 * time.Second, byLoad},
			{"out of band, more often", outOfBand("5s"), 3, 5 * time.Second, byLoad},
			{"with each answer, of which there are none", fmt.Sprintf(weighted, ""), 0, 5 * time.Second, even},
			{"out of band again", outOfBand("5s"), 3, 5 * time.Second, byLoad},
			{"round robin again", `"lbPolicy": "ROUND_ROBIN"`, 0, 5 * time.Second, even},
		} {
			g.plane.Set(balancedCluster(groundGRPC, step.fields))
			time.Sleep(time.Minute)
			for _, p := range payments {
				p.grpc.Store(0)
			}
			for range 700 {
				if _, err := g.callGRPC(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for i, p := range payments {
				if got := p.grpc.Load(); got < step.want[i]*9/10 || got > step.want[i]*11/10 {
					t.Errorf("%s: payment %d had %d of 700 calls, want %d", step.name, i+1, got, step.want[i])
				}
			}
			synctest.Wait()
			if n := streams.Load(); n != step.streams || time.Duration(every.Load()) != step.every {
				t.Errorf("%s: %d streams of reports, want %d; every %v, want %v", step.name, n, step.streams, time.Duration(every.Load()), step.every)
			}
		}
	})
}

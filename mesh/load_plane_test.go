package mesh_test

import (
	"context"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadstatsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// reported is a cluster whose load the control plane wants to know.
func reported(port string) *clusterv3.Cluster {
	c := groundCluster(port)
	c.LrsServer = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Self{Self: &corev3.SelfConfigSource{}}}
	c.LrsReportEndpointMetrics = []string{"cpu_utilization", "named_metrics.queue", "from_the_future"}
	return c
}

// sum adds the reports of a cluster up.
type sum struct {
	issued, succeeded, failed, running, dropped uint64
	interval                                    time.Duration
}

func (s *sum) add(stats []*endpointv3.ClusterStats, name string) {
	for _, one := range stats {
		if one.GetClusterName() != name {
			continue
		}
		s.dropped += one.GetTotalDroppedRequests()
		s.interval += one.GetLoadReportInterval().AsDuration()
		for _, l := range one.GetUpstreamLocalityStats() {
			s.issued += l.GetTotalIssuedRequests()
			s.succeeded += l.GetTotalSuccessfulRequests()
			s.failed += l.GetTotalErrorRequests()
			s.running = l.GetTotalRequestsInProgress()
		}
	}
}

func everySecond() *loadstatsv3.LoadStatsResponse {
	return &loadstatsv3.LoadStatsResponse{SendAllClusters: true, LoadReportingInterval: durationpb.New(2 * time.Second)}
}

func TestX104_LoadIsReportedOnceAndAgainAfterABrokenStream(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.plane.Set(reported(groundHTTP), reported(groundGRPC))
		g.works() // one call each
		stream := g.plane.Server.AcceptLoad()
		if first := stream.Recv(); first.GetNode().GetId() != "customer-1" || len(first.GetClusterStats()) != 0 ||
			first.GetNode().GetClientFeatures()[len(first.GetNode().GetClientFeatures())-1] != "envoy.lrs.supports_send_all_clusters" {
			g.t.Errorf("first request %v", first)
		}
		time.Sleep(10 * time.Second) // nothing is reported before it is asked for
		asked := time.Now()
		stream.Send(everySecond())
		report := stream.Recv()
		if took := report.At.Sub(asked); took != 2*time.Second {
			g.t.Errorf("the report came after %v", took)
		}
		total := map[string]*sum{groundHTTP: {}, groundGRPC: {}}
		take := func(stats []*endpointv3.ClusterStats) {
			for name, s := range total {
				s.add(stats, name)
			}
		}
		take(report.GetClusterStats())
		for name, s := range total {
			if *s != (sum{issued: 1, succeeded: 1, interval: s.interval}) || s.interval < 12*time.Second {
				g.t.Errorf("%s: %+v", name, s)
			}
		}
		for _, one := range report.GetClusterStats() {
			l := one.GetUpstreamLocalityStats()[0]
			if cpu := l.GetCpuUtilization(); cpu.GetNumRequestsFinishedWithMetric() != 1 || cpu.GetTotalMetricValue() != 0.5 {
				g.t.Errorf("%s: utilization %v", one.GetClusterName(), cpu)
			}
			if named := l.GetLoadMetricStats(); len(named) != 1 || named[0].GetMetricName() != "named_metrics.queue" || named[0].GetTotalMetricValue() != 3 {
				g.t.Errorf("%s: metrics %v", one.GetClusterName(), named)
			}
		}
		for range 5 {
			g.works()
		}
		report = stream.Recv()
		take(report.GetClusterStats())

		// The stream breaks; the calls of the meantime are not lost, and what was
		// told is not told again. The new stream waits for the server's interval.
		g.works()
		stream.End(status.Error(codes.Unavailable, "broken"))
		stream = g.plane.Server.AcceptLoad()
		stream.Recv()
		g.works()
		stream.Send(everySecond())
		take(stream.Recv().GetClusterStats())
		for name, s := range total {
			if s.issued != 8 || s.succeeded != 8 || s.failed != 0 || s.running != 0 {
				g.t.Errorf("%s: %+v, want 8 calls in all", name, s)
			}
		}
		// When nobody asks any more, the stream ends.
		g.plane.Set(groundCluster(groundHTTP), groundCluster(groundGRPC))
		time.Sleep(5 * time.Second)
		g.plane.Server.ExpectNoLoad(time.Minute)
	})
}

func TestX104_TheLastTimeOfAClusterThatIsGoneIsReported(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.plane.Set(reported(groundHTTP), reported(groundGRPC), groundCluster("other"), assignment("other", groundHTTP, 1, 1))
		g.works()
		stream := g.plane.Server.AcceptLoad()
		stream.Recv()
		stream.Send(everySecond())
		total := map[string]*sum{groundHTTP: {}, groundGRPC: {}}
		next := func() {
			stats := stream.Recv().GetClusterStats()
			for name, s := range total {
				s.add(stats, name)
			}
		}
		next()
		// One of the two goes, with calls that were not told yet.
		g.works()
		g.plane.Set(groundRoutes(groundHTTP, "other"))
		time.Sleep(time.Second)
		next()
		for name, s := range total {
			if s.issued != 2 || s.succeeded != 2 {
				g.t.Errorf("%s: %+v, want 2 calls", name, s)
			}
		}
		// The other one is the last that is asked for: its report ends the stream.
		if _, err := g.callGRPC(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
		left := time.Now()
		g.plane.Set(groundRoutes(groundGRPC, "other"))
		next()
		if s := total[groundGRPC]; s.issued != 3 || s.succeeded != 3 || s.running != 0 {
			g.t.Errorf("gRPC: %+v, want 3 calls", s)
		}
		if took := time.Since(left); took > 2*time.Second {
			g.t.Errorf("the last report came after %v", took)
		}
		time.Sleep(5 * time.Second)
		g.plane.Server.ExpectNoLoad(time.Minute)
	})
}

func TestX104_LoadIsTheOneOfEachLocalityWithDropsAndErrors(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.plane.Set(tree(1)...)
		drops := assignment(groundGRPC, groundGRPC, 1, 1)
		drops.Policy = &endpointv3.ClusterLoadAssignment_Policy{DropOverloads: []*endpointv3.ClusterLoadAssignment_Policy_DropOverload{{
			Category: "tide", DropPercentage: &typev3.FractionalPercent{Numerator: 100},
		}}}
		g.plane.Set(reported(groundHTTP), reported(groundGRPC), drops, assignment(groundHTTP, groundHTTP, 1, 1, 9)) // 9 is not there
		for range 10 {
			_, _ = g.callHTTP(g.t.Context())
			ctx, cancel := context.WithTimeout(g.t.Context(), time.Second)
			_, _ = g.callGRPC(ctx)
			cancel()
		}
		stream := g.plane.Server.AcceptLoad()
		stream.Recv()
		stream.Send(&loadstatsv3.LoadStatsResponse{Clusters: []string{groundHTTP, groundGRPC}, LoadReportingInterval: durationpb.New(time.Millisecond)})
		stats := stream.Recv().GetClusterStats()
		if len(stats) != 2 {
			g.t.Fatalf("stats %v", stats)
		}
		locality := stats[0].GetUpstreamLocalityStats()[0]
		if locality.GetLocality().GetZone() != "z" || locality.GetTotalSuccessfulRequests()+locality.GetTotalErrorRequests() != locality.GetTotalIssuedRequests() ||
			locality.GetTotalSuccessfulRequests() == 0 {
			g.t.Errorf("HTTP: %v", stats[0])
		}
		if d := stats[1].GetDroppedRequests(); len(d) != 1 || d[0].GetCategory() != "tide" || d[0].GetDroppedCount() != 10 || stats[1].GetTotalDroppedRequests() != 10 {
			g.t.Errorf("gRPC: %v", stats[1])
		}
	})
}

// Granularity is the server's wish, for HTTP and gRPC alike.
func TestX104_TheLoadOfEachEndpointIsReportedToAServerThatAsks(t *testing.T) {
	t.Parallel()
	onGround(t, func(g *ground) {
		g.payment(1)
		g.payment(2)
		g.plane.Set(tree(1, 2)...)
		g.plane.Set(reported(groundHTTP), reported(groundGRPC))
		g.works()
		stream := g.plane.Server.AcceptLoad()
		stream.Recv()
		want := everySecond()
		ask := func(each bool) map[string]map[string]uint64 {
			want.ReportEndpointGranularity = each
			stream.Send(want)
			for range 6 {
				g.works()
			}
			issued := make(map[string]map[string]uint64)
			for _, cluster := range stream.Recv().GetClusterStats() {
				one := make(map[string]uint64)
				issued[cluster.GetClusterName()] = one
				for _, l := range cluster.GetUpstreamLocalityStats() {
					one[""] += l.GetTotalIssuedRequests()
					for _, e := range l.GetUpstreamEndpointStats() {
						at := e.GetAddress().GetSocketAddress()
						one[net.JoinHostPort(at.GetAddress(), strconv.Itoa(int(at.GetPortValue())))] += e.GetTotalIssuedRequests()
						if e.GetTotalIssuedRequests() != e.GetTotalSuccessfulRequests() || len(e.GetLoadMetricStats()) != 2 {
							g.t.Errorf("%s: %v", cluster.GetClusterName(), e)
						}
					}
				}
			}
			return issued
		}
		for name, loads := range ask(true) {
			total := loads[""]
			if total < 6 || len(loads) != 3 || loads["10.0.0.1:"+name]+loads["10.0.0.2:"+name] != total {
				g.t.Errorf("%s: %v, want the parts of both payments", name, loads)
			}
		}
		for name, loads := range ask(false) {
			if len(loads) != 1 || loads[""] < 6 {
				g.t.Errorf("%s: %v, want the whole locality alone", name, loads)
			}
		}
	})
}

func TestX94_V59_LoadGoesToNobodyWhoDoesNotAsk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t)
		g.payment(1)
		g.plane.Set(tree(1)...)
		g.works()
		g.plane.Server.ExpectNoLoad(time.Minute)
		// Nor to a server that another one names (V59).
		elsewhere := reported(groundHTTP)
		elsewhere.LrsServer = &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
		g.plane.Set(elsewhere)
		time.Sleep(time.Second)
		if got := g.resource(clusterURL, groundHTTP); got.State != "NACKED" {
			t.Errorf("the cluster is %+v", got)
		}
		g.plane.Server.ExpectNoLoad(time.Minute)
	})
}

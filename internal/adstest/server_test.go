package adstest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/adstest"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

func dial(t *testing.T, server *adstest.Server) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	conn, err := server.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

func TestRequestsAreRecordedWithTheirTimeAndResponsesAreSentAsScripted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{})
		client, err := dial(t, server).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		time.Sleep(3 * time.Second)
		if err := client.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL, ResourceNames: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		stream := server.Accept()
		request := stream.RecvType(clusterURL)
		if got := request.At.Sub(start); got != 3*time.Second || request.Names[0] != "a" || stream.Delta {
			t.Errorf("request %v after %v", request, got)
		}
		stream.Send(adstest.Response(clusterURL, "v1", "n1", &clusterv3.Cluster{Name: "a"}))
		response, err := client.Recv()
		if err != nil || response.GetVersionInfo() != "v1" || len(response.GetResources()) != 1 {
			t.Errorf("response %v, %v", response, err)
		}
		stream.ExpectNone(time.Second)
		stream.End(status.Error(codes.ResourceExhausted, "enough"))
		if _, err := client.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("end: %v", err)
		}
	})
}

func TestDeltaIsServedUnlessRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{})
		client, err := dial(t, server).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterURL, ResourceNamesSubscribe: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		stream := server.Accept()
		if request := stream.Recv(); !stream.Delta || request.Subscribe[0] != "a" {
			t.Errorf("request %v", request)
		}
		stream.Send(adstest.Removing(adstest.DeltaResponse(clusterURL, "n1", adstest.Resource("a", "1", &clusterv3.Cluster{Name: "a"})), "b"))
		if response, err := client.Recv(); err != nil || response.GetRemovedResources()[0] != "b" {
			t.Errorf("response %v, %v", response, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{RefuseDelta: true})
		client, err := dial(t, server).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Recv(); status.Code(err) != codes.Unimplemented {
			t.Errorf("refused delta: %v", err)
		}
	})
}

func TestAStoppedServerRefusesUntilRestarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{})
		client, err := dial(t, server).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream := server.Accept()
		if server.Open() != 1 || len(server.Connects()) != 1 {
			t.Errorf("%d open, %d connects", server.Open(), len(server.Connects()))
		}
		server.Stop()
		<-stream.Done()
		if _, err := client.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("stream of a stopped server: %v", err)
		}
		if _, err := dial(t, server).StreamAggregatedResources(t.Context()); status.Code(err) != codes.Unavailable {
			t.Errorf("dial of a stopped server: %v", err)
		}
		server.Restart()
		if _, err := dial(t, server).StreamAggregatedResources(t.Context()); err != nil {
			t.Errorf("dial of a restarted server: %v", err)
		}
		server.Accept()
	})
}

func TestAFrozenServerIsNoticedByKeepaliveOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := adstest.Start(t, adstest.Config{})
		server.DialWith(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		client, err := dial(t, server).StreamAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		server.Accept()
		synctest.Wait()
		server.Freeze()
		start := time.Now()
		_, err = client.Recv()
		if got := time.Since(start); status.Code(err) != codes.Unavailable || got < 20*time.Second || got > 40*time.Second {
			t.Errorf("recv: %v after %v", err, got)
		}
		server.ExpectNoStream(time.Second)
	})
}

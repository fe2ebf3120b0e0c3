package adstest_test

import (
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/inboardmesh/inboard/internal/adstest"
)

func TestAPlaneAnswersWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plane := adstest.Serve(t, adstest.Config{})
		plane.Set(&clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{Name: "b"})
		client, err := dial(t, plane.Server).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ask := func(r *discoveryv3.DeltaDiscoveryRequest) {
			r.TypeUrl = clusterURL
			if err := client.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		ask(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a", "c"}})
		response, err := client.Recv()
		if err != nil || len(response.GetResources()) != 1 || len(response.GetRemovedResources()) != 1 {
			t.Fatalf("response %v, %v", response, err)
		}
		time.Sleep(2 * time.Second)
		ask(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: response.GetNonce()})
		synctest.Wait()
		if got := plane.Answers(); got != (adstest.Answers{Sent: 1, Answered: 1, Slowest: 2 * time.Second}) {
			t.Errorf("answers %+v", got)
		}
		plane.Remove(clusterURL, "a")
		if response, err = client.Recv(); err != nil || len(response.GetRemovedResources()) != 1 {
			t.Errorf("response %v, %v", response, err)
		}
		plane.Touch(clusterURL) // "b" was not asked for
		plane.Set(&clusterv3.Cluster{Name: "c"})
		if response, err = client.Recv(); err != nil || response.GetResources()[0].GetName() != "c" {
			t.Errorf("response %v, %v", response, err)
		}
		if n := len(plane.Requests()); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestAPlaneOfTheStateOfTheWorldListsAllClusters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		plane := adstest.Serve(t, adstest.Config{})
		plane.Set(&clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{Name: "b"})
		client, err := dial(t, plane.Server).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Send(&discoveryv3.DiscoveryRequest{TypeUrl: clusterURL, ResourceNames: []string{"a", "b"}}); err != nil {
			t.Fatal(err)
		}
		if response, err := client.Recv(); err != nil || len(response.GetResources()) != 2 {
			t.Fatalf("response %v, %v", response, err)
		}
		plane.Remove(clusterURL, "a")
		if response, err := client.Recv(); err != nil || len(response.GetResources()) != 1 {
			t.Fatalf("response %v, %v", response, err)
		}
		plane.Silence(true)
		plane.Set(&clusterv3.Cluster{Name: "b", AltStatName: "x"})
		synctest.Wait()
		plane.Silence(false)
		if response, err := client.Recv(); err != nil || response.GetVersionInfo() != "5" {
			t.Fatalf("response %v, %v", response, err)
		}
	})
}

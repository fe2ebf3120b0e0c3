package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/controlplane"
)

func TestStatusShowsWhatAClientRejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "payment.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	where, stop := plane(t, "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--status", "127.0.0.1:0")
	defer stop()
	url := "http://" + where.Status
	if code, out, errs := call(t, "status", "--control-plane", url); code != exitOK || !strings.Contains(out, "no client is connected") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}

	conn, err := grpc.NewClient(where.Plaintext, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const typeURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	const name = "outbound|8080||payment.shop.svc.cluster.local"
	send := func(r *discovery.DeltaDiscoveryRequest) {
		t.Helper()
		r.TypeUrl = typeURL
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "web-1\x1b[31m"}, ResourceNamesSubscribe: []string{name}})
	response, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	send(&discovery.DeltaDiscoveryRequest{ResponseNonce: response.GetNonce(), ErrorDetail: &status.Status{
		Code: 3, Message: `rejected 1 of 1 resources: resource 0 "` + name + `": lb_policy: unknown`,
	}})
	// The answer to another name comes when the rejection has been noted.
	send(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"none"}})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	code, out, errs := call(t, "status", "--control-plane", url)
	if code != exitFailed || errs != "" || strings.Contains(out, "\x1b") {
		t.Errorf("code %d: %q", code, errs)
	}
	for _, want := range []string{"web-1", "delta", "Cluster", "REJECTED", " at 127.0.0.1:", " rejects what it is sent (1 times on this stream, the last at ", `  Cluster "` + name + `": lb_policy: unknown`, "1 responses rejected"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, _ = call(t, "status", "--control-plane", url, "-o", "json")
	var found controlplane.Status
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitFailed || len(found.Clients) != 1 {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
}

func TestStatusTellsWhoHasAllFromWhoWasSentNothing(t *testing.T) {
	t.Parallel()
	for want, state := range map[string]controlplane.TypeStatus{
		"up to date":   {Subscribed: 4, Current: true},
		"nothing sent": {Subscribed: 4},
		"accepted":     {Subscribed: 4, Sent: "2", Acked: "2", Current: true},
		"not answered": {Subscribed: 4, Sent: "2", Acked: "1", Current: true},
	} {
		if got := stateOf(&state); got != want {
			t.Errorf("%+v is %q, want %q", state, got, want)
		}
	}
}

// TestStatusShowsWhatAClientIsRefused: its operator finds here which workload has its
// address.
func TestStatusShowsWhatAClientIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "payment.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1\n    serviceAccount: payment"))
	where, stop := plane(t, "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--status", "127.0.0.1:0")
	defer stop()
	conn, err := grpc.NewClient(where.Plaintext, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const name = "xds.istio.io/grpc/lds/inbound/10.0.0.1:8080"
	metadata, err := structpb.NewStruct(map[string]any{"NAMESPACE": "shop", "SERVICE_ACCOUNT": "web"})
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "web-1", Metadata: metadata}, TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", ResourceNamesSubscribe: []string{name},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	code, out, errs := call(t, "status", "--control-plane", "http://"+where.Status)
	if code != exitFailed || errs != "" {
		t.Errorf("code %d: %q", code, errs)
	}
	for _, want := range []string{"REFUSED", "web-1 at 127.0.0.1:", " is refused:", `  Listener "` + name + `": the workload at 10.0.0.1:8080 has the service account "payment" of namespace "shop"`, `the node is "web" of "shop"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestStatusCountsStreamsAndConnections: those that were refused, too.
func TestStatusCountsStreamsAndConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "payment.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	where, stop := plane(t, "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--max-streams", "1", "--max-connections", "1")
	defer stop()
	conn, err := grpc.NewClient(where.Plaintext, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{
			Node: &core.Node{Id: "web-1"}, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNamesSubscribe: []string{"none"},
		}); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		_, _ = stream.Recv() // the second one is refused
	}
	other, err := new(net.Dialer).DialContext(ctx, "tcp", where.Plaintext)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, _ = other.Read(make([]byte, 1)) // it is closed
	code, out, errs := call(t, "status", "--control-plane", "http://"+where.Status)
	if code != exitOK || errs != "" {
		t.Errorf("code %d: %q", code, errs)
	}
	for _, want := range []string{
		"now: 1 streams of at most 1, 1 connections of at most 1\n",
		"since the start: 1 streams, 0 of them ended for silence, 1 more refused; 1 connections, 0 of them closed without a call, 1 more refused;",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	resp, err := http.Get("http://" + where.Status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	for _, want := range []string{
		"inboard_control_plane_connections 1", "inboard_control_plane_connections_limit 1", "inboard_control_plane_connections_refused_total 1",
		"inboard_control_plane_connections_total 1", "inboard_control_plane_connections_idle_total 0",
		"inboard_control_plane_streams_limit 1", "inboard_control_plane_streams_refused_total 1",
	} {
		if err != nil || !strings.Contains(string(metrics), want+"\n") {
			t.Errorf("%v: no %q in\n%s", err, want, metrics)
		}
	}
}

func TestStatusOfWhatIsNoControlPlane(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(nil)
	defer other.Close()
	for address, want := range map[string]string{
		"nonsense":           `--control-plane "nonsense" is no URL: write it like http://127.0.0.1:15014`,
		"http://127.0.0.1:1": "does the control plane run, and does its --status listen there?",
		other.URL:            "answered with status 404, and not as a control plane does",
	} {
		if code, _, errs := call(t, "status", "--control-plane", address); code == exitOK || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d: %s", address, code, errs)
		}
	}
}

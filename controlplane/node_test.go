package controlplane

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestNodeOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, json string
		want       istio.Node
		err        string
	}{
		{
			name: "everything",
			json: `{"id": "a", "locality": {"region": "r", "zone": "z", "subZone": "s"}, "metadata": {
				"NAMESPACE": "shop", "SERVICE_ACCOUNT": "payment", "CLUSTER_ID": "c", "LABELS": {"app": "payment"}, "OTHER": 1}}`,
			want: istio.Node{
				ID: "a", Namespace: "shop", ServiceAccount: "payment", Cluster: "c", Labels: map[string]string{"app": "payment"},
				Locality: istio.Locality{Region: "r", Zone: "z", SubZone: "s"},
			},
		},
		{
			name: "namespace in the id", json: `{"id": "sidecar~10.0.0.1~payment-1.0.shop~shop.svc.cluster.local"}`,
			want: istio.Node{ID: "sidecar~10.0.0.1~payment-1.0.shop~shop.svc.cluster.local", Namespace: "shop"},
		},
		{
			name: "namespace in the metadata and another in the id", json: `{"id": "sidecar~10.0.0.1~a.bank~bank.svc.cluster.local", "metadata": {"NAMESPACE": "shop"}}`,
			want: istio.Node{ID: "sidecar~10.0.0.1~a.bank~bank.svc.cluster.local", Namespace: "shop"},
		},
		{name: "id without a namespace", json: `{"id": "sidecar~10.0.0.1~payment~x"}`, want: istio.Node{ID: "sidecar~10.0.0.1~payment~x"}},
		{name: "id with too few parts", json: `{"id": "sidecar~10.0.0.1~payment.shop"}`, want: istio.Node{ID: "sidecar~10.0.0.1~payment.shop"}},
		{name: "id with an empty namespace", json: `{"id": "sidecar~10.0.0.1~payment.~x"}`, want: istio.Node{ID: "sidecar~10.0.0.1~payment.~x"}},
		{name: "gRPC's own", json: `{"id": "a", "userAgentName": "gRPC Go"}`, want: istio.Node{ID: "a", NativeGRPC: true}},
		{name: "gRPC's own in Node", json: `{"id": "a", "userAgentName": "gRPC Node Pure JS"}`, want: istio.Node{ID: "a", NativeGRPC: true}},
		{name: "the mesh with Istio's generator for gRPC", json: `{"id": "a", "userAgentName": "inboard", "metadata": {"GENERATOR": "grpc"}}`, want: istio.Node{ID: "a"}},
		{name: "only an id", json: `{"id": "a"}`, want: istio.Node{ID: "a"}},
		{name: "no id", json: `{}`, err: "the first request of a stream needs a node with an id"},
		{name: "namespace that is a number", json: `{"id": "a", "metadata": {"NAMESPACE": 1}}`, err: "node metadata NAMESPACE: want a string"},
		{name: "account that is null", json: `{"id": "a", "metadata": {"SERVICE_ACCOUNT": null}}`, err: "node metadata SERVICE_ACCOUNT: want a string"},
		{name: "labels that are a list", json: `{"id": "a", "metadata": {"LABELS": []}}`, err: "node metadata LABELS: want an object"},
		{name: "label that is an object", json: `{"id": "a", "metadata": {"LABELS": {"x": {}}}}`, err: `node metadata LABELS["x"]: want a string`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var node core.Node
			if err := protojson.Unmarshal([]byte(tt.json), &node); err != nil {
				t.Fatal(err)
			}
			got, err := nodeOf(&node)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func FuzzNode(f *testing.F) {
	seed, err := proto.Marshal(node("shop", "payment"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var node core.Node
		if proto.Unmarshal(data, &node) != nil {
			return
		}
		if who, err := nodeOf(&node); err == nil && who.ID == "" {
			t.Error("a node without an id is accepted")
		}
	})
}

package meshtest_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
)

const bySourceYAML = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{sourceLabels: {app: customer, tier: gold}}]
    route: [{destination: {host: payment, subset: v2}}]
  - match: [{sourceLabels: {app: customer, version: next}}]
    route: [{destination: {host: payment, subset: v2}}]
  - route: [{destination: {host: payment, subset: v1}}]
`

func TestAWorkloadHasLabels(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		for _, version := range []string{"v1", "v2"} {
			w.Service("payment.shop", meshtest.Version(version),
				meshtest.HTTP(80, named(version)), meshtest.GRPC(9090, register(version)))
		}
		w.Apply(subsets("v1", "v2") + bySourceYAML)
		for _, tt := range []struct {
			name    string
			options []meshtest.Option
			want    string
		}{
			{name: "customer.shop", want: "v1"},
			{name: "customer.shop", options: []meshtest.Option{meshtest.Labels(map[string]string{"tier": "gold"})}, want: "v2"},
			{name: "customer.shop", options: []meshtest.Option{meshtest.Version("next")}, want: "v2"},
			{name: "ledger.bank", options: []meshtest.Option{meshtest.Version("next")}, want: "v1"},
			{name: "ledger.bank", options: []meshtest.Option{meshtest.Version("next"), meshtest.Labels(map[string]string{"app": "customer"})}, want: "v2"},
		} {
			m := w.Workload(tt.name, tt.options...)
			if _, body := get(t, m.HTTPClient(), "http://payment.shop/"); body != tt.want {
				t.Errorf("HTTP: %s was answered by %q, want %q", tt.name, body, tt.want)
			}
			if got := callGRPC(t, m); got != tt.want {
				t.Errorf("gRPC: %s was answered by %q, want %q", tt.name, got, tt.want)
			}
		}
	})
}

func TestAWorkloadHasALocality(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		var west *meshtest.Instance
		for _, region := range []string{"east", "west"} {
			west = w.Service("payment.shop", meshtest.Version(region), meshtest.Locality(region+"/1"),
				meshtest.HTTP(80, named(region)), meshtest.GRPC(9090, register(region)))
		}
		w.Apply(failoverYAML)
		caller := w.Workload("customer.shop", meshtest.Locality("west/1"))
		for range 10 {
			if _, body := get(t, caller.HTTPClient(), "http://payment.shop/"); body != "west" {
				t.Errorf("HTTP: got %q", body)
			}
			if got := callGRPC(t, caller); got != "west" {
				t.Errorf("gRPC: got %q", got)
			}
		}
		west.Kill()
		get(t, caller.HTTPClient(), "http://payment.shop/") // ejects it
		for range 10 {
			if _, body := get(t, caller.HTTPClient(), "http://payment.shop/"); body != "east" {
				t.Errorf("HTTP: got %q after the failure", body)
			}
		}
	})
}

func TestAWorkloadHasOptionsOfItsMesh(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		for _, version := range []string{"v1", "v2"} {
			w.Service("payment.shop", meshtest.Version(version),
				meshtest.HTTP(80, named(version)), meshtest.GRPC(9090, register(version)))
		}
		const yaml = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n" +
			"metadata: {name: payment, namespace: shop, annotations: {inboard.balancer: \"{policy: acme.last}\"}}\n" +
			"spec: {host: payment}\n"
		w.Apply(yaml)
		var told atomic.Int64
		m := w.Workload("customer.shop",
			meshtest.Mesh(mesh.Balancing{Policies: map[string]func([]*balancer.Host, map[string]any) balancer.Picker{
				"acme.last": func(hosts []*balancer.Host, _ map[string]any) balancer.Picker { return lastOf(hosts) },
			}}),
			meshtest.Hooks(&observe.Hooks{
				CallStarted: func(ctx context.Context, c *observe.Call) context.Context {
					c.State = "mine"
					return ctx
				},
				AttemptEnded: func(_ context.Context, a *observe.Attempt) {
					if a.Call.State == "mine" {
						told.Add(1)
					}
				},
				CallEnded: func(_ context.Context, c *observe.Call) {
					if c.State == "mine" {
						told.Add(100)
					}
				},
			}))
		for range 3 {
			if code, body := get(t, m.HTTPClient(), "http://payment.shop/"); body != "v2" {
				t.Errorf("HTTP: got %d %q", code, body)
			}
			if got := callGRPC(t, m); got != "v2" {
				t.Errorf("gRPC: got %q", got)
			}
		}
		if n := told.Load(); n != 606 {
			t.Errorf("the hooks counted %d, want 606", n)
		}
		if got := w.Calls(); len(got) != 6 || got[0].String() != "customer.shop GET payment.shop/: payment-v2 200" {
			t.Errorf("got %v", lines(w))
		}
	})
}

func TestMistakesInTheOptionsOfAWorkloadFailTheTest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		option meshtest.Option
		want   string
	}{
		{"none", nil, "option 0 is nil"},
		{"a port", meshtest.HTTP(80, http.NotFoundHandler()), "a workload serves no port: HTTP, GRPC and TCP are for World.Service"},
		{"a locality of four parts", meshtest.Locality("a/b/c/d"), `"a/b/c/d" is not a locality: write region/zone/subzone`},
		{"a locality without a region", meshtest.Locality("/b"), `"/b" is not a locality`},
		{"hooks in place of the World's", meshtest.Mesh(mesh.WithHooks(&observe.Hooks{})), "mesh.WithHooks replaces the hooks of the World: use meshtest.Hooks"},
		{"OpenTelemetry in place of hooks", meshtest.Mesh(mesh.WithTracerProvider(noop.NewTracerProvider())), "WithHooks replaces OpenTelemetry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := failureOf(func(t meshtest.TB) { meshtest.New(t).Workload("customer.shop", tt.option) })
			if want := `meshtest: workload "customer.shop": `; !strings.HasPrefix(got, want) || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, want+tt.want)
			}
		})
	}
}

// named answers with a name.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(name)) })
}

// callGRPC returns who answered, or the error as text.
func callGRPC(t *testing.T, m *mesh.Mesh) string {
	t.Helper()
	conn, err := grpc.NewClient("mesh:///payment.shop:9090", m.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
	if err != nil {
		return err.Error()
	}
	return reply.GetUsername()
}

// lastOf picks the last host.
type lastOf []*balancer.Host

func (l lastOf) Pick(balancer.PickInfo) int { return len(l) - 1 }

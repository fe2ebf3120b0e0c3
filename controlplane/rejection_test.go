package controlplane

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func TestARejectionIsTakenApartByResource(t *testing.T) {
	t.Parallel()
	r := response{names: []string{"outbound|80||a", "outbound|80||ab", "c", "", "payment", "payment-v2", "all"}}
	for _, tt := range []struct {
		name, text string
		want       []RejectedResource
	}{
		{
			"as Inboard writes it",
			`rejected 2 of 7 resources: resource 0 "outbound|80||a": lb_policy: 7 is unknown; use another; resource 2 "c": no name`,
			[]RejectedResource{{"outbound|80||a", "lb_policy: 7 is unknown; use another"}, {"c", "no name"}},
		},
		{
			"a reason of Inboard that names others",
			`rejected 1 of 7 resources: resource 5 "payment-v2": eds_cluster_config.service_name: "all" is not supported; ask payment; "c": no`,
			[]RejectedResource{{"payment-v2", `eds_cluster_config.service_name: "all" is not supported; ask payment; "c": no`}},
		},
		{
			"what Inboard cut, and what has no name",
			`rejected 4 of 7 resources: resource 1: type "x" does not match; resource 4 "payment": lb_pol... (2 more)`,
			[]RejectedResource{{"payment", "lb_pol... (2 more)"}},
		},
		{
			"as grpc-go writes it",
			"error parsing \"Cluster\" response: resource \"all\": the child \"payment\"; resource \"c\": no;\nresource \"c\": no name",
			[]RejectedResource{{"all", `the child "payment"; resource "c": no`}, {"c", "no name"}},
		},
		{
			"what grpc-go cannot name",
			"error parsing \"Cluster\" response: top level errors: unexpected type for payment;\nresource all",
			[]RejectedResource{},
		},
		{
			"as Envoy writes it of clusters",
			"Error adding/updating cluster(s) outbound|80||ab: strict DNS without a host, or two, c: no name",
			[]RejectedResource{{"outbound|80||ab", "strict DNS without a host, or two"}, {"c", "no name"}},
		},
		{
			"a reason of Envoy that names others",
			"Error adding/updating cluster(s) all: lb_policy all children of payment must be STRICT_DNS",
			[]RejectedResource{{"all", "lb_policy all children of payment must be STRICT_DNS"}},
		},
		{
			"as Envoy writes it of listeners",
			"Error adding/updating listener(s) all: bad route, c: none\nand more\npayment: duplicate listener payment found\n",
			[]RejectedResource{{"all", "bad route, c: none\nand more"}, {"payment", "duplicate listener payment found"}},
		},
		{"what Envoy rejects as a whole", "Proto constraint validation failed (c: payment)", []RejectedResource{}},
		{"another client", "c: no name", []RejectedResource{{"c", "no name"}}},
		{"a name alone", `c`, []RejectedResource{{"c", "c"}}},
		{"no name", "thanks, no", []RejectedResource{}},
		{"a longer name of somebody else", `"outbound|80||abc" and c-2`, []RejectedResource{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := r.rejected(tt.text); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzRejected(f *testing.F) {
	f.Add("a", "b", `rejected 2 of 2 resources: resource 0 "a": x; resource 1 "b": y`)
	f.Add("a", "b", "error parsing \"x\" response: resource \"a\": x;\nresource \"b\": y")
	f.Add("a", "b", "Error adding/updating listener(s) a: x\nb: y")
	f.Add("a", "a", "a")
	f.Add("é", "", "é: \xff")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		r := response{names: []string{a, b}}
		for _, got := range r.rejected(text) {
			if got.Name == "" || got.Name != clip(a) && got.Name != clip(b) || len(got.Reason) > 1030 {
				t.Errorf("%q: %+v", text, got)
			}
		}
	})
}

func TestNACKsAreShownByClientAndResource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1"), service("ledger", "10.0.0.2")}})
		network := serveMemory(t, s)
		conn := dial(t, network, "plaintext:1")
		good, bad := newDelta(t, conn, node("good", "")), newDelta(t, conn, node("bad", ""))
		world := newSotw(t, conn, node("world", ""))
		names := []string{cluster("ledger"), cluster("payment")}
		good.subscribe(cds, names...)
		good.want(cds, names, nil)
		bad.subscribe(cds, names...)
		bad.nack(bad.next(), `rejected 1 of 2 resources: resource 1 "`+cluster("payment")+`": lb_policy: unknown`)
		world.subscribe(cds, names...)
		world.last[cds] = world.next()
		world.request(cds, cluster("ledger")+": too old", names...)
		synctest.Wait()

		status := s.Status()
		want := map[string][]RejectedResource{
			"good": nil, "bad": {{cluster("payment"), "lb_policy: unknown"}}, "world": {{cluster("ledger"), "too old"}},
		}
		for _, client := range status.Clients {
			account, state := client.Namespace, client.Types[cds]
			if state.Resources != 2 {
				t.Errorf("%s: %d resources sent", account, state.Resources)
			}
			if want[account] == nil {
				if state.NACK != nil || state.NACKs != 0 {
					t.Errorf("%s: %+v", account, state)
				}
				continue
			}
			if state.NACK == nil || state.NACKs != 1 || !slices.Equal(state.NACK.Resources, want[account]) {
				t.Errorf("%s: %+v of %+v, want %+v", account, state.NACK, state, want[account])
			}
		}
		if got, want := status.Totals, (Totals{Streams: 3, Connections: 1, Resources: 6, NACKs: 2}); got != want {
			t.Errorf("totals %+v, want %+v", got, want)
		}

		w := httptest.NewRecorder()
		s.StatusHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		body, err := io.ReadAll(w.Result().Body)
		if err != nil || w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4") {
			t.Fatalf("status %d, %v, %v", w.Code, w.Header(), err)
		}
		for _, line := range []string{
			`inboard_control_plane_clients{protocol="delta"} 2`,
			`inboard_control_plane_clients{protocol="state-of-the-world"} 1`,
			`inboard_control_plane_clients_rejecting{type="Cluster"} 2`,
			`inboard_control_plane_nacks_total 2`,
			`inboard_control_plane_resources_sent_total 6`,
			`inboard_control_plane_streams_total 3`,
			`inboard_control_plane_subscribed{type="Cluster"} 6`,
			`inboard_control_plane_config_good 1`,
		} {
			if !strings.Contains("\n"+string(body), "\n"+line+"\n") {
				t.Errorf("no line %q in\n%s", line, body)
			}
		}
	})
}

func TestTypesThatClientsMakeUpAreOneSeries(t *testing.T) {
	t.Parallel()
	if typeName("x/evil") != "other" || typeName(resource.ClusterType) != "Cluster" {
		t.Errorf("names %q and %q", typeName("x/evil"), typeName(resource.ClusterType))
	}
}

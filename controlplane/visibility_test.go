package controlplane

import (
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func virtualService(name string, rules string) istio.File {
	return istio.File{Name: "routes-" + name + ".yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ` + name + `, namespace: shop}
spec:
  hosts: [` + host(name) + `]
  http:
` + rules)}
}

func TestRoutesByWhoAsksArePushedToThoseWhomAChangeConcerns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rules := func(canary, rest string) istio.File {
			return virtualService("payment", `  - {match: [{sourceLabels: {track: canary}}], route: [{destination: {host: payment}}], name: `+canary+`}
  - {route: [{destination: {host: payment}}], name: `+rest+"}\n")
		}
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1"), rules("a", "b")}})
		conn := dial(t, serveMemory(t, s), "plaintext:1")
		labelled := node("shop", "customer")
		labelled.Metadata.Fields["LABELS"] = structpb.NewStructValue(&structpb.Struct{
			Fields: map[string]*structpb.Value{"track": structpb.NewStringValue("canary")},
		})
		canary, stable := newDelta(t, conn, labelled), newDelta(t, conn, node("shop", "customer"))
		for _, c := range []*deltaClient{canary, stable} {
			c.subscribe(rds, cluster("payment"))
			c.want(rds, []string{cluster("payment")}, nil)
		}

		mustUpdate(t, s, service("payment", "10.0.0.1"), rules("a2", "b"))
		canary.want(rds, []string{cluster("payment")}, nil)
		stable.quiet()

		mustUpdate(t, s, service("payment", "10.0.0.1"), rules("a2", "b2"))
		stable.want(rds, []string{cluster("payment")}, nil)
		canary.quiet() // what matches every request of the node ends its routes
	})
}

func TestAServiceThatIsHiddenIsTakenFromThoseWhoMustNotSeeIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hidden := service("payment", "10.0.0.1")
		hidden.Data = []byte(strings.Replace(string(hidden.Data), "resolution: STATIC", "resolution: STATIC\n  exportTo: [.]", 1))
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		conn := dial(t, serveMemory(t, s), "plaintext:1")
		shop, bank := newDelta(t, conn, node("shop", "customer")), newDelta(t, conn, node("bank", "teller"))
		for _, c := range []*deltaClient{shop, bank} {
			c.subscribe(lds, host("payment")+":8080")
			c.want(lds, []string{host("payment") + ":8080"}, nil)
		}
		mustUpdate(t, s, hidden)
		bank.want(lds, nil, []string{host("payment") + ":8080"})
		shop.quiet()
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		bank.want(lds, []string{host("payment") + ":8080"}, nil)
		shop.quiet()
	})
}

func TestWarningsAreInTheStatusAndOnceInTheLog(t *testing.T) {
	t.Parallel()
	var logs logBuffer
	orphan := istio.File{Name: "orphan.yaml", Data: []byte("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: orphan, namespace: shop}\n" +
		"spec:\n  http: [{route: [{destination: {host: payment}}]}]\n")}
	s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1"), orphan}, Logger: logs.logger()})
	const want = "orphan.yaml:5:3: warning: VirtualService shop/orphan: spec: has no hosts"
	if got := s.Status().Config.Warnings; len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	mustUpdate(t, s, service("payment", "10.0.0.2"), orphan)
	if logs.count("configuration warning") != 1 || logs.count("orphan.yaml:5") != 1 {
		t.Errorf("the warning is not in the log once:\n%s", &logs)
	}
	mustUpdate(t, s, service("payment", "10.0.0.2"))
	if got := s.Status().Config.Warnings; len(got) > 0 {
		t.Errorf("warnings %q after the cause went", got)
	}
}

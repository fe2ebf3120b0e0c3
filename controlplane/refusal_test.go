package controlplane

import (
	"strings"
	"testing"
	"testing/synctest"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// ledgerAt is a ledger whose address is known, and its port.
func ledgerAt(account string) istio.File {
	return istio.File{Name: "ledger.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: shop}
spec:
  hosts: [` + host("ledger") + `]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8080, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, serviceAccount: ` + account + `}]
`)}
}

// TestARefusedListenerHasAReason: the workload is told that it is refused and who it is
// itself, its operator finds in the status whose the listener is. Nobody else is told.
func TestARefusedListenerHasAReason(t *testing.T) {
	t.Parallel()
	const name = "xds.istio.io/grpc/lds/inbound/10.0.0.1:8080"
	refused := func(t *testing.T, errs []*discovery.ResourceError) {
		t.Helper()
		if len(errs) != 1 || errs[0].GetResourceName().GetName() != name || codes.Code(errs[0].GetErrorDetail().GetCode()) != codes.PermissionDenied {
			t.Fatalf("errors %v", errs)
		}
		text := errs[0].GetErrorDetail().GetMessage()
		if !strings.Contains(text, `this one is the service account "customer" of namespace "shop"`) || strings.Contains(text, "ledger") {
			t.Errorf("told %q", text)
		}
	}
	shown := func(s *Server) []RefusedListener {
		for _, c := range s.Status().Clients {
			return c.Types[lds].Refused
		}
		return nil
	}
	t.Run("delta", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := mustNew(t, Config{Files: []istio.File{ledgerAt("ledger")}})
			c := newDelta(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", "customer"))
			c.subscribe(lds, name, "nothing")
			refused(t, c.want(lds, nil, []string{"nothing", name}).GetResourceErrors())
			got := shown(s)
			if len(got) != 1 || got[0].Name != name || !strings.Contains(got[0].Reason, `has the service account "ledger" of namespace "shop" (ServiceEntry shop/ledger (ledger.yaml:1))`) {
				t.Errorf("shown %+v", got)
			}
			mustUpdate(t, s, ledgerAt("customer"))
			if errs := c.want(lds, []string{name}, nil).GetResourceErrors(); len(errs) > 0 {
				t.Errorf("errors %v", errs)
			}
			if got := shown(s); len(got) > 0 {
				t.Errorf("shown %+v", got)
			}
			mustUpdate(t, s, ledgerAt("ledger"))
			refused(t, c.want(lds, nil, []string{name}).GetResourceErrors())
		})
	})
	t.Run("state of the world", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := mustNew(t, Config{Files: []istio.File{ledgerAt("ledger"), service("payment", "10.0.0.2")}})
			c := newSotw(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", "customer"))
			payment := host("payment") + ":8080"
			c.subscribe(lds, name, payment)
			refused(t, c.want(lds, []string{payment}, name, payment).GetResourceErrors())
			if got := shown(s); len(got) != 1 {
				t.Errorf("shown %+v", got)
			}
			mustUpdate(t, s, ledgerAt("customer"), service("payment", "10.0.0.2"))
			if errs := c.want(lds, []string{payment, name}, name, payment).GetResourceErrors(); len(errs) > 0 {
				t.Errorf("errors %v", errs)
			}
		})
	})
}

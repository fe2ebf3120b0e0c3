package mesh_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// TestAProcessIsToldThatAListenerIsAnothers: who it is itself, not who the other one is,
// where it waits for the listener and in what its admin page shows. It serves as soon as
// the documents know that it is there.
func TestAProcessIsToldThatAListenerIsAnothers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ledger = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books, namespace: shop}
spec:
  hosts: [books.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.9.9, serviceAccount: ACCOUNT}]
`
		w := meshtest.New(t)
		w.Apply(strings.Replace(ledger, "ACCOUNT", "ledger", 1))
		m := w.Workload("payment.shop")
		network := new(memnet.Network)
		serve := func() error {
			t.Helper()
			inner, err := network.Listen("10.9.9.9:80")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ln, err := m.Serve(ctx, inner)
			if err == nil {
				t.Cleanup(func() { _ = ln.Close() })
			}
			return err
		}
		const told = `refused: the configuration has another workload at this address, and this one is the service account "payment" of namespace "shop"`
		err := serve()
		if err == nil || !strings.Contains(err.Error(), told) || !strings.Contains(err.Error(), "PermissionDenied") || strings.Contains(err.Error(), "ledger") {
			t.Errorf("%v, want %q", err, told)
		}
		w.Apply(strings.Replace(ledger, "ACCOUNT", "payment", 1))
		if err := serve(); err != nil {
			t.Error(err)
		}
		w.Apply(strings.Replace(ledger, "ACCOUNT", "ledger", 1))
		synctest.Wait()
		shown := false
		for _, r := range m.Resources() {
			shown = shown || r.Err != nil && strings.Contains(r.Err.Error(), told)
		}
		if !shown {
			t.Errorf("not shown: %+v", m.Resources())
		}
	})
}

package mesh_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/worldtest"
)

func TestX26_AnAddressThatIsListenedOnAgainWhileTheControlPlaneIsAwayServes(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	m := w.Join("shop", "payment", map[string]string{"app": "payment"})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	serve := func(address string) net.Listener {
		t.Helper()
		ln, err := m.Listen(ctx, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	ln := serve("127.0.0.1:0")
	w.StopControlPlane()
	for range 3 {
		address := ln.Addr().String()
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		ln = serve(address)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}

package nativegrpc_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/connectivity"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/internal/worldtest"
)

// TestTheAdminPageShowsGuests: what they have, and what they are refused.
func TestTheAdminPageShowsGuests(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := newNative(t, w, "a")
	w.Apply(servers(payment) + strict + tokens)
	if err := payment.awaitMode(t, connectivity.ServingModeNotServing); err == nil {
		t.Error("not serving without a reason")
	}
	recorder := httptest.NewRecorder()
	admin.Handler(payment.mesh).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "http://localhost/config", http.NoBody))
	for _, want := range []string{
		`"name": "xds.istio.io/grpc/lds/inbound/` + payment.address + `"`, `"server": true`, `"state": "REFUSED"`, "cannot enforce JWTAuthn", `"type": "Listener"`,
	} {
		if !strings.Contains(recorder.Body.String(), want) {
			t.Errorf("there is no %s in\n%s", want, recorder.Body)
		}
	}
}

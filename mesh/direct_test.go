package mesh_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/outcome"
)

// What passes round the mesh ends with it, too.
func TestCloseEndsWhatPassesRoundTheMesh(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush() // the test sees what became of it
				<-r.Context().Done()
			}))
			server.EnableHTTP2 = true
			template := &http.Transport{}
			if scheme == "https" {
				server.StartTLS()
				template.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
			} else {
				server.Start()
			}
			t.Cleanup(server.Close)
			w := worldtest.New(t, "")
			m := w.Join("shop", "customer", nil, mesh.Network{Transport: template})
			resp := send(t, m.Transport(), func(r *http.Request) {
				r.URL.Scheme, r.URL.Host, r.Host = scheme, server.Listener.Addr().String(), ""
			})
			defer resp.Body.Close()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { // ends with the body
				_, err := io.ReadAll(resp.Body)
				ended <- err
			}()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the body ended well")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the request goes on after Close")
			}
			again, err := m.HTTPClient().Get(server.URL)
			if err == nil {
				again.Body.Close()
			}
			if e, ok := errors.AsType[*mesh.Error](err); !ok || e.Kind != outcome.Closed {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

package mesh_test

import (
	"log/slog"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/mesh"
)

// TestV64_AMeshChangesNothingOfTheProcess: what an application finds in package
// variables is what it was before.
func TestV64_AMeshChangesNothingOfTheProcess(t *testing.T) {
	t.Parallel()
	type globals struct {
		transport, client, mux, tracers, meters, propagator, logger any
	}
	snapshot := func() globals {
		return globals{
			http.DefaultTransport, http.DefaultClient, http.DefaultServeMux, //nolint:forbidigo // to see that nobody uses them
			otel.GetTracerProvider(), otel.GetMeterProvider(), otel.GetTextMapPropagator(), slog.Default(),
		}
	}
	before := snapshot()
	protocols := http.DefaultTransport.(*http.Transport).Protocols //nolint:forbidigo // as above
	config, err := bootstrap.Parse([]byte(`{"xds_servers": [{"server_uri": "127.0.0.1:1", "channel_creds": [{"type": "insecure"}]}], "node": {"id": "a"}}`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(t.Context(), mesh.WithBootstrap(config))
	if err != nil {
		t.Fatal(err)
	}
	_ = m.HTTPClient()
	_ = m.Server(http.NotFoundHandler())
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if after := http.DefaultTransport.(*http.Transport).Protocols; after != protocols { //nolint:forbidigo // as above
		t.Error("the default transport speaks other protocols")
	}
}

package mesh_test

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/mesh"
)

// A control plane that is restarted and answers before it has loaded its configuration
// fails no call of the processes that run (X33), nor of those that were started
// meanwhile and live from disk: what they call, and what they serve under their policy.
func TestX33_X36_AProcessFromDiskOutlivesAControlPlaneThatComesBackEmpty(t *testing.T) {
	t.Parallel()
	for _, api := range []bootstrap.APIType{bootstrap.APIDelta, bootstrap.APISotW} {
		t.Run(api.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { emptyPlane(t, api) })
		})
	}
}

func emptyPlane(t *testing.T, api bootstrap.APIType) {
	const address = "10.0.0.50:80"
	denied := `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
		"rules": {"action": "DENY", "policies": {"p": {"permissions": [{"urlPath": {"path": {"prefix": "/secret"}}}], "principals": [{"any": true}]}}}}},`
	g := &ground{t: t, network: newGroundNetwork()}
	g.plane = adstest.Serve(t, adstest.Config{Network: g.network})
	config := &bootstrap.Config{
		Servers: []bootstrap.Server{g.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"},
		ServerListenerTemplate: "inbound/%s",
	}
	config.Servers[0].API = api
	kept := mesh.LastKnownGood{Dir: filepath.Join(t.TempDir(), "kept")}
	g.payment(1)
	g.payment(2)
	g.plane.Set(tree(1)...)
	g.plane.Set(rawListener(t, address, "", "", denied))

	serve := func() (end func()) {
		t.Helper()
		inner, err := g.network.Listen(address)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ln, err := g.mesh.Serve(ctx, inner)
		if err != nil {
			t.Fatal(err)
		}
		server := g.mesh.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		done := make(chan struct{})
		go func() { // ends with the server
			defer close(done)
			_ = server.Serve(ln)
		}()
		return func() {
			_ = server.Close()
			<-done
		}
	}
	governed := func(when string) {
		t.Helper()
		transport := &http.Transport{DialContext: g.network.DialContext}
		defer transport.CloseIdleConnections()
		for path, want := range map[string]int{"/ok": http.StatusOK, "/secret": http.StatusForbidden} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Errorf("%s: %s: %v", when, path, err)
				continue
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %s: status %d, want %d", when, path, resp.StatusCode, want)
			}
		}
	}

	g.join(config, kept)
	end := serve()
	g.works()
	governed("live")
	time.Sleep(3 * time.Second) // it is on disk
	end()
	if err := g.mesh.Close(); err != nil {
		t.Fatal(err)
	}

	g.plane.Server.Stop()
	for _, url := range []string{listenerURL, routeURL, clusterURL, endpointURL} {
		g.plane.Remove(url, groundHost+":"+groundHTTP, groundHost+":"+groundGRPC, groundHTTP, groundGRPC, "inbound/"+address)
	}
	g.plane.Restarted()
	g.join(config, kept)
	end = serve()
	defer func() { end() }()
	g.works()
	calls := g.traffic(10)
	g.plane.Server.Restart()
	for range 6 {
		time.Sleep(10 * time.Second)
		governed("under an empty control plane")
	}
	if got := g.mesh.ConfigSource(); got.String() != "last known good" {
		t.Errorf("source %+v", got)
	}
	calls.report(500)
	// And those that are started only now.
	end()
	if err := g.mesh.Close(); err != nil {
		t.Fatal(err)
	}
	g.join(config, kept)
	end = serve()
	g.each(10*time.Second, func(protocol, payment string, _ time.Duration, err error) {
		if err != nil || payment != "1" {
			t.Errorf("%s: answered by %q, %v", protocol, payment, err)
		}
	})
	governed("started under an empty control plane")

	calls = g.traffic(10)
	g.plane.Set(tree(2)...)
	g.plane.Set(rawListener(t, address, "", "", denied))
	time.Sleep(10 * time.Second)
	governed("loaded")
	calls.report(90)
	if got := g.mesh.ConfigSource(); got.String() != "live" {
		t.Errorf("source %+v", got)
	}
	g.each(time.Second, func(protocol, payment string, _ time.Duration, err error) {
		if err != nil || payment != "2" {
			t.Errorf("%s: answered by %q, %v", protocol, payment, err)
		}
	})
}

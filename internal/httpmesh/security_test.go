package httpmesh

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/observe"
)

// TestV65_AListenerOfTheApplicationsOwnIsNotProtected, and nobody shall think so:
// the application itself answers there, as it would without a mesh. What is
// served through the mesh's handler is refused instead.
func TestV65_AListenerOfTheApplicationsOwnIsNotProtected(t *testing.T) {
	t.Parallel()
	handler, _ := newBenchHandler(t, &observe.Hooks{}, application{})
	for _, tt := range []struct {
		name    string
		handler http.Handler
		want    int
	}{
		{"the application alone", application{}, http.StatusOK},
		{"the application through the mesh", handler, http.StatusServiceUnavailable},
	} {
		server := httptest.NewServer(tt.handler)
		resp, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", tt.name, resp.StatusCode, tt.want)
		}
		server.Close()
	}
}

// TestV63_PanicsOfTheApplicationLeaveNothingBehind: each request is counted out.
func TestV63_PanicsOfTheApplicationLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	handler, req := newBenchHandler(t, &observe.Hooks{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for range 10_000 {
		func() {
			defer func() { _ = recover() }()
			handler.ServeHTTP(&sink{header: make(http.Header)}, req)
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	listeners := handler.(*Handler).Listeners
	began := make(chan error, 1)
	go func() {
		_, err := listeners.Drain(ctx, inbound.DrainPolicy{Listen: -1, Quiet: -1})
		began <- err
	}()
	// The bench's own connection stays open, which is given 5 s.
	if err := <-began; err != nil {
		t.Error(err)
	}
}

// TestBH3_TooManyHeadersAreRefused over a real connection, which is closed behind
// the answer.
func TestBH3_TooManyHeadersAreRefused(t *testing.T) {
	t.Parallel()
	in := strict()
	in.Chains[0].TLS, in.Chains[0].Match = nil, discovery.ChainMatch{}
	in.Chains[0].Headers = discovery.HeaderLimits{Bytes: 1 << 10, Count: 10}
	listeners := inbound.New(inbound.Options{Source: served{in}, Hooks: &observe.Hooks{}})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := listeners.Listen(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &Handler{Listeners: listeners, Hooks: &observe.Hooks{}, Next: application{}}, ReadHeaderTimeout: time.Minute}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { // until Close
		defer close(done)
		_ = server.Serve(ln)
	}()
	defer func() {
		_ = server.Close()
		_ = listeners.Close()
		<-done
	}()
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(version == "HTTP/1.1")
		tr.Protocols.SetUnencryptedHTTP2(version == "HTTP/2")
		defer tr.CloseIdleConnections()
		for _, tt := range []struct {
			name string
			edit func(http.Header)
			want int
		}{
			{"a few", func(h http.Header) { h.Set("X-A", "a") }, http.StatusOK},
			{"too many", func(h http.Header) {
				for i := range 10 {
					h.Set("X-"+strconv.Itoa(i), "a")
				}
			}, http.StatusRequestHeaderFieldsTooLarge},
			{"too large", func(h http.Header) { h.Set("Cookie", strings.Repeat("a", 1<<10)) }, http.StatusRequestHeaderFieldsTooLarge},
			{"a few again", func(http.Header) {}, http.StatusOK},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			tt.edit(req.Header)
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s, %s: %v", version, tt.name, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("%s, %s: status %d, want %d", version, tt.name, resp.StatusCode, tt.want)
			}
		}
	}
}

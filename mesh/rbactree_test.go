package mesh_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestATreeOfMatchersDecides about requests of HTTP/1.1 and HTTP/2 and about calls of
// gRPC, as it comes over xDS: admins may do everything, auditors may look at what is
// under /read, nobody else anything.
func TestATreeOfMatchersDecides(t *testing.T) {
	t.Parallel()
	const action = `"action": {"name": "a", "typedConfig": {"@type": "type.googleapis.com/envoy.config.rbac.v3.Action", "name": "p", "action": "ALLOW"}}`
	input := func(header string) string {
		return `"input": {"name": "h", "typedConfig": {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "headerName": "` + header + `"}}`
	}
	filter := `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "matcher": {
		"matcherTree": {` + input("x-role") + `, "exactMatchMap": {"map": {
			"admin": {` + action + `},
			"auditor": {"matcher": {"matcherList": {"matchers": [{"predicate": {"singlePredicate": {` + input(":path") + `, "valueMatch": {"prefix": "/read"}}}, "onMatch": {` + action + `}}]}}}}}}}}}, `
	x := newRawXDS(t)
	server := x.join()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.set(rawListener(t, inner.Addr().String(), "", "", filter))
	ln, err := server.Serve(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	web := server.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = web.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = web.Close()
		<-done
	})
	for _, http2 := range []bool{false, true} {
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!http2)
		tr.Protocols.SetUnencryptedHTTP2(http2)
		defer tr.CloseIdleConnections()
		for _, tt := range []struct {
			path  string
			roles []string
			want  int
		}{
			{"/write", []string{"admin"}, http.StatusOK},
			{"/read/it", []string{"auditor"}, http.StatusOK},
			{"/write", []string{"auditor"}, http.StatusForbidden},
			{"/write", nil, http.StatusForbidden},
			{"/write", []string{"admin", "auditor"}, http.StatusForbidden},
			{"/read/it", []string{"mallory"}, http.StatusForbidden},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+inner.Addr().String()+tt.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header["X-Role"] = tt.roles
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != tt.want {
				t.Errorf("HTTP/2 %t, %s as %q: %d, want %d", http2, tt.path, tt.roles, resp.StatusCode, tt.want)
			}
		}
	}

	client := outsider(t, serveRawFiltered(t, newRawXDS(t), "", filter))
	for role, want := range map[string]codes.Code{"admin": codes.OK, "auditor": codes.PermissionDenied, "": codes.PermissionDenied} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := client.EmptyCall(metadata.AppendToOutgoingContext(ctx, "x-role", role), new(grpc_testing.Empty))
		cancel()
		if status.Code(err) != want {
			t.Errorf("gRPC as %q: %v, want %v", role, err, want)
		}
	}
}

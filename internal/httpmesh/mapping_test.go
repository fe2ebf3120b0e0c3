package httpmesh

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// TestBM5_AnswersOfTheMeshSpeakTheCallersProtocol is about whoever carries gRPC over
// net/http. An abort with a gRPC status is one for every caller, as from Envoy.
func TestBM5_AnswersOfTheMeshSpeakTheCallersProtocol(t *testing.T) {
	t.Parallel()
	abort := func(a discovery.FaultAbort) *discovery.Route {
		a.PerMillion = million
		return &discovery.Route{Local: true, Filters: map[string]discovery.FilterOverride{"fault": {Config: &discovery.Fault{Abort: &a}}}}
	}
	tests := []struct {
		name       string
		route      *discovery.Route
		status     int    // for HTTP
		code       string // for gRPC
		message    string
		always     bool // a gRPC status for HTTP, too
		serverOnly bool
	}{
		{name: "an abort with a gRPC status", route: abort(discovery.FaultAbort{IsGRPC: true, GRPCStatus: 5}), status: 200, always: true, code: "5", message: "fault filter abort"},
		{name: "an abort with an HTTP status", route: abort(discovery.FaultAbort{HTTPStatus: 429}), status: 429, code: "14", message: "fault filter abort"},
		{
			name: "no route", route: &discovery.Route{Local: true, Match: discovery.RouteMatch{Path: discovery.PathMatch{Value: "/other"}}},
			status: 404, code: "14", message: "no route", serverOnly: true,
		},
		{
			name: "a direct response", route: &discovery.Route{Direct: &discovery.DirectResponse{Status: 403, Body: []byte("100 % no")}},
			status: 403, code: "7", message: "100 %25 no", serverOnly: true,
		},
	}
	filters := []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{}}}
	expect := func(t *testing.T, status int, h http.Header, want int, code, message string) {
		t.Helper()
		if status != want || h.Get("Grpc-Status") != code || h.Get("Grpc-Message") != message {
			t.Errorf("status %d, %v", status, h)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, contentType := range []string{"application/json", "application/grpc+proto"} {
				want, code, message := tt.status, "", ""
				if tt.always || contentType != "application/json" {
					want, code, message = http.StatusOK, tt.code, tt.message
				}
				handler, req := newFilteredHandler(t, &observe.Hooks{}, http.NotFoundHandler(), filters, tt.route)
				req.Header.Set("Content-Type", contentType)
				rec := httptest.NewRecorder()
				handler.ServeHTTP(rec, req)
				expect(t, rec.Code, rec.Header(), want, code, message)
				if tt.serverOnly {
					continue
				}
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
						target.Listener.Filters = filters
						top(target).Filters = tt.route.Filters
					}), nil)
					req := newRequest(t.Context(), t, http.MethodPost, paymentURL, nil)
					req.Header.Set("Content-Type", contentType)
					resp := w.do(req)
					expect(t, resp.StatusCode, resp.Header, want, code, message)
					if body, err := io.ReadAll(resp.Body); err != nil || (len(body) > 0) != (code == "") || int64(len(body)) != resp.ContentLength {
						t.Errorf("%q, %v", body, err)
					}
				})
			}
		})
	}
}

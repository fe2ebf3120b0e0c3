package httpmesh

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
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
			status: 403, code: "7", message: "100 %25 no",
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
						if tt.route.Direct != nil {
							top(target).Direct, top(target).Forward = tt.route.Direct, nil
						}
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

// A body that the configuration gives to a status that has none would be taken for
// the next response of the connection.
func TestAStatusWithoutContentIsSentWithoutIt(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNoContent, http.StatusResetContent, http.StatusNotModified} {
		direct := &discovery.DirectResponse{Status: status, Body: []byte("HTTP/1.1 200 OK")}
		abort := map[string]discovery.FilterOverride{"fault": {Config: &discovery.Fault{Abort: &discovery.FaultAbort{HTTPStatus: status, PerMillion: million}}}}
		filters := []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{}}}
		for name, route := range map[string]*discovery.Route{
			"a direct response": {Local: true, Direct: direct},
			"an abort":          {Local: true, Filters: abort},
		} {
			t.Run(strconv.Itoa(status)+", "+name, func(t *testing.T) {
				t.Parallel()
				handler, req := newFilteredHandler(t, &observe.Hooks{}, http.NotFoundHandler(), filters, route)
				rec := httptest.NewRecorder()
				handler.ServeHTTP(rec, req)
				if rec.Code != status || rec.Body.Len() > 0 {
					t.Errorf("the server: %d, %q", rec.Code, rec.Body)
				}
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
						target.Listener.Filters = filters
						if top(target).Filters = route.Filters; route.Direct != nil {
							top(target).Direct, top(target).Forward = route.Direct, nil
						}
					}), nil)
					resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
					body := readAll(t, resp)
					if resp.StatusCode != status || body != "" || resp.ContentLength != 0 || resp.Header.Get("Content-Type") != "" {
						t.Errorf("the client: %d, %q, length %d, %v", resp.StatusCode, body, resp.ContentLength, resp.Header)
					}
				})
			})
		}
	}
}

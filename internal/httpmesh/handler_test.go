package httpmesh

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inboardmesh/inboard/observe"
)

// The mesh ends a request's context before its caller has gone. What applications
// do then must not pass for an answer.
func TestAnApplicationThatGivesUpAtItsDeadlineHasNotAnswered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		serve http.HandlerFunc
		want  int
	}{
		{"gives up", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, http.StatusGatewayTimeout},
		{"says so itself", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusServiceUnavailable)
		}, http.StatusServiceUnavailable},
		{"has begun", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			<-r.Context().Done()
		}, http.StatusAccepted},
		{"has nothing to say, in time", func(http.ResponseWriter, *http.Request) {}, http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			handler, req := newBenchHandler(t, &observe.Hooks{}, tt.serve)
			req.Header.Set(DefaultDeadlineHeader, "50")
			rec := httptest.NewRecorder()
			handler.ServeHTTP(rec, req)
			if rec.Code != tt.want {
				t.Errorf("status %d, want %d", rec.Code, tt.want)
			}
		})
	}
}

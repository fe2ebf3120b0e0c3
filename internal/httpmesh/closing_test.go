package httpmesh

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// A request that an injected delay holds back at its server does not outlive the mesh,
// and is not served behind its end.
func TestARequestInAnInjectedDelayIsRefusedWhenTheServersMeshIsClosed(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	hooks := &observe.Hooks{CallStarted: func(ctx context.Context, _ *observe.Call) context.Context {
		close(started)
		return ctx
	}}
	delay := discovery.FilterOverride{Config: &discovery.Fault{Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: million}}}
	handler, req := newFilteredHandler(t, hooks, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was served") }),
		[]discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{}}},
		&discovery.Route{Local: true, Filters: map[string]discovery.FilterOverride{"fault": delay}})
	req.Header.Del(DefaultDeadlineHeader)
	rec := httptest.NewRecorder()
	served := make(chan struct{})
	go func() {
		defer close(served)
		handler.ServeHTTP(rec, req)
	}()
	<-started
	if err := handler.(*Handler).Listeners.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after Close")
	}
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d", rec.Code)
	}
}

package httpmesh

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/explain"
	"github.com/inboardmesh/inboard/observe"
)

// Explain says what RoundTrip would do with a request, which is neither sent nor
// changed; its body is not read. The error is that of RoundTrip for a request that
// it would not take.
func (t *Transport) Explain(req *http.Request) (*explain.Explanation, error) {
	if err := check(req); err != nil {
		return nil, err
	}
	bodiless := *plain(req)
	bodiless.Body = nil
	headers := header(copyHeader(req.Header))
	x := &exchange{transport: t, request: &bodiless}
	x.describe(req.URL.Scheme)
	x.call.Observed.Start = time.Now()
	q := &explain.Question{
		Protocol: observe.HTTP, Target: string(appendTargetName(nil, req.URL)),
		Request: x.view(http.Header(headers)), Headers: headers, Facts: x.facts(),
		Unhedged: func() string { return unhedged(req, x.call.Observed.Method) },
	}
	q.Request.Source = t.outbound.Caller()
	if req.URL.Scheme == "https" {
		return t.explainDirect(q, errEndToEnd), nil
	}
	config, release, err := t.outbound.Peek(req.Context(), q.Target)
	switch {
	case errors.Is(err, discovery.ErrNotFound):
		return t.explainDirect(q, err), nil
	case err != nil:
		return q.New(explain.NoConfig, err.Error()), nil
	}
	defer release()
	return q.By(req.Context(), config), nil
}

func (t *Transport) explainDirect(q *explain.Question, reason error) *explain.Explanation {
	if t.around == nil {
		return q.New(explain.Refused, fmt.Sprintf("by the outbound policy (registry only): %v", reason))
	}
	return q.New(explain.AroundMesh, reason.Error())
}

package meshtest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Call is one call as its caller saw it, with what the mesh decided.
type Call struct {
	// From is the workload that called, such as "customer.shop".
	From     string
	Protocol observe.Protocol
	// Method is the HTTP method, or gRPC's "/pkg.Service/Method". Host is as
	// the caller wrote it, Path without the query.
	Method, Host, Path string
	// Route is the name of the matched route, as the VirtualService has it, and
	// Cluster what it chose: "outbound|80|v2|payment.shop.svc.cluster.local".
	Route, Cluster string
	// Attempts are in their order. A call that the mesh answered itself has
	// none.
	Attempts []Attempt
	// Outcome is what the caller got.
	Outcome outcome.Outcome
	// Start and End delimit the call; End is when its response body, or its
	// stream, had ended.
	Start, End time.Time
}

// Attempt is one attempt of a call.
type Attempt struct {
	// Instance is the name of the instance that it was sent to, "" if none
	// could be picked or the endpoint is none of the world's.
	Instance          string
	Cluster, Endpoint string
	Outcome           outcome.Outcome
	Start, End        time.Time
}

// String is the call in a line, for a comparison in a test:
//
//	customer.shop GET payment.shop/charge: payment-v1 503, payment-v2 200
//
// It has who called, what was called, and for each attempt where it went and how
// it ended. A result that the last attempt does not explain follows after an
// arrow.
func (c Call) String() string {
	var b strings.Builder
	b.WriteString(c.From + " ")
	if c.Protocol == observe.GRPC {
		b.WriteString(c.Host + c.Method)
	} else {
		b.WriteString(c.Method + " " + c.Host + c.Path)
	}
	b.WriteString(":")
	last := ""
	for i, a := range c.Attempts {
		if i > 0 {
			b.WriteString(",")
		}
		last = describe(&a.Outcome)
		b.WriteString(" " + a.String())
	}
	switch result := describe(&c.Outcome); {
	case len(c.Attempts) == 0:
		b.WriteString(" " + result)
	case result != last:
		b.WriteString(" -> " + result)
	}
	return b.String()
}

// String is where the attempt went and how it ended: "payment-v1 503".
func (a Attempt) String() string {
	where := a.Instance
	if where == "" {
		where = a.Endpoint
	}
	if where == "" {
		return describe(&a.Outcome)
	}
	return where + " " + describe(&a.Outcome)
}

// describe is an HTTP status, the name of a gRPC code, or the kind of a failure.
func describe(o *outcome.Outcome) string {
	switch {
	case o.GRPC && (o.Kind == outcome.Response || o.Kind == outcome.Local):
		return codes.Code(o.Code).String()
	case o.Status != 0:
		return strconv.Itoa(o.Status)
	}
	return o.Kind.String()
}

// Calls returns every call of a workload that has ended, in the order of their
// ends. A call ends with its response body: one that is not closed is not here.
// A call to a host that the mesh does not know never enters the mesh, and is not
// here either: its caller has the error. The caller owns the result.
func (w *World) Calls() []Call {
	w.calls.mu.Lock()
	defer w.calls.mu.Unlock()
	return slices.Clone(w.calls.ended)
}

// ResetCalls forgets the calls that have ended.
func (w *World) ResetCalls() {
	w.calls.mu.Lock()
	defer w.calls.mu.Unlock()
	w.calls.ended = nil
}

// WantCalls fails the test unless the calls that have ended are these, each as
// [Call.String] has it, in the order of their ends. Then it forgets them, so that the
// next one is about what comes next.
func (w *World) WantCalls(want ...string) {
	w.tb.Helper()
	w.calls.mu.Lock()
	got := make([]string, len(w.calls.ended))
	for i := range w.calls.ended {
		got[i] = w.calls.ended[i].String()
	}
	w.calls.ended = nil
	w.calls.mu.Unlock()
	if !slices.Equal(want, got) {
		w.tb.Errorf("meshtest: the calls were\n\t%s\nand not\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// recorder collects the calls of all workloads.
type recorder struct {
	world *World

	mu    sync.Mutex
	ended []Call                  // guarded by mu
	open  map[*observe.Call]*Call // guarded by mu; outbound. State is for the test's own hooks
}

// record makes hooks, which may be a test's own, record the calls of one workload. A
// call and its attempts report on one goroutine at a time.
func (r *recorder) record(name string, h *observe.Hooks) {
	started, attempted, ended := h.CallStarted, h.AttemptEnded, h.CallEnded
	h.CallStarted = func(ctx context.Context, c *observe.Call) context.Context {
		if c.Direction == observe.Outbound {
			r.mu.Lock()
			r.open[c] = new(Call)
			r.mu.Unlock()
		}
		if started != nil {
			ctx = started(ctx, c)
		}
		return ctx
	}
	h.AttemptEnded = func(ctx context.Context, a *observe.Attempt) {
		attempt := Attempt{
			Instance: r.world.instanceAt(a.Endpoint), Cluster: a.Cluster, Endpoint: a.Endpoint,
			Outcome: a.Outcome, Start: a.Start, End: a.End,
		}
		r.mu.Lock()
		if call := r.open[a.Call]; call != nil {
			call.Attempts = append(call.Attempts, attempt)
		}
		r.mu.Unlock()
		if attempted != nil {
			attempted(ctx, a)
		}
	}
	h.CallEnded = func(ctx context.Context, c *observe.Call) {
		if c.Direction == observe.Outbound {
			r.end(name, c)
		}
		if ended != nil {
			ended(ctx, c)
		}
	}
}

func (r *recorder) end(name string, c *observe.Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call := r.open[c]
	if call == nil {
		return
	}
	delete(r.open, c)
	call.From, call.Protocol, call.Method, call.Host, call.Path = name, c.Protocol, c.Method, c.Host, c.Path
	call.Route, call.Cluster = c.Route, c.Cluster
	call.Outcome, call.Start, call.End = c.Outcome, c.Start, c.End
	r.ended = append(r.ended, *call)
}

// instanceAt returns the name of the instance at an endpoint's address.
func (w *World) instanceAt(endpoint string) string {
	ip, _, err := net.SplitHostPort(endpoint)
	if err != nil {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := w.byIP[ip]; i != nil {
		return i.name
	}
	return ""
}

var _, _ fmt.Stringer = Call{}, Attempt{}

package grpcmesh

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// picker asks the mesh for an endpoint, once per attempt.
type picker struct{ policy *policy }

var _ balancer.Picker = (*picker)(nil)

var (
	errOutside = errors.New("mesh: the call did not pass the mesh's interceptors: pass all of Mesh.DialOptions")
	// errOver is a status, so that no call waits for what comes after it.
	errOver = status.Error(codes.Canceled, "mesh: the call has ended")

	// errClosedStatus is a status, so that no call waits for a mesh that was closed.
	errClosedStatus = status.Error(codes.Canceled, upstream.ErrClosed.Error())

	errRefused = errors.New("the server did not process the request")
	// errRefusedStatus is a status, so that gRPC gives the attempt back.
	errRefusedStatus = status.Error(codes.Unavailable, errRefused.Error())

	errPending = errors.New("circuit breaker: too many pending requests")
	// errPendingStatus is a status, so that no call waits in spite of the limit.
	errPendingStatus = status.Error(codes.Unavailable, errPending.Error())
)

// Pick sends the attempt to the endpoint that the mesh chose. While that is
// being connected to for the first time, the call waits, as one of the cluster's
// pending requests; when that fails, another is chosen, for nothing has been
// sent. When none is left it insists on one that it did not wait for, once: an
// endpoint that is back is found at once, whatever the back-off. Only then the
// attempt has failed.
//
// gRPC asks once more for an attempt whose server did not process it (REFUSED_STREAM,
// or a GOAWAY that excludes it). It gets none: that is another attempt, which the
// pipeline makes as over HTTP/2, and observers, limits and the bound on such attempts
// must see it.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	a := attemptOf(info.Ctx)
	if a == nil {
		return balancer.PickResult{}, errOutside
	}
	var t *turn
	for {
		result, awaited, err := p.pick(a, t)
		if awaited == nil {
			p.policy.leave(t)
			return result, err
		}
		// gRPC would wait where this does, until it has another picker or the call
		// ends: here as many calls go on as can be sent, instead of all.
		var overflow bool
		if t, overflow = p.policy.queue(awaited, a.insists(), t); overflow {
			a.overflowed("connections")
		}
		if !t.wait(info.Ctx) {
			p.policy.leave(t)
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		}
	}
}

// pick is Pick, but for the wait for a connection, or for room on one: awaited is the
// endpoint for which the call must wait, with its turn t if it has waited already.
func (p *picker) pick(a *attempt, t *turn) (result balancer.PickResult, awaited *upstream.Endpoint, err error) {
	a.picking.Lock()
	defer a.picking.Unlock()
	if a.over {
		return balancer.PickResult{}, nil, errOver
	}
	if a.pipeline.Closed() {
		_ = a.pickFailed(outcome.Closed, upstream.ErrClosed)
		return balancer.PickResult{}, nil, errClosedStatus
	}
	if a.marks.refused() {
		return balancer.PickResult{}, nil, errRefusedStatus
	}
	endpoint := a.pipeline.Endpoint
	if endpoint == nil {
		if endpoint, err = p.find(a); err != nil {
			return balancer.PickResult{}, nil, err
		}
	}
	if !a.parting && endpoint.Draining() {
		if next, err := a.pipeline.Elsewhere(); err == nil {
			endpoint = next
		}
		a.parting = endpoint.Draining()
	}
	insist := false
	for {
		taken, state, failure := p.policy.get(endpoint, insist, t)
		switch state {
		case connectivity.Ready:
			a.waitOver()
			if err := a.pipeline.Depart(); err != nil {
				p.policy.ended(taken)
				_ = a.pickFailed(outcome.Timeout, err)
				return balancer.PickResult{}, nil, status.Error(codes.DeadlineExceeded, err.Error()) // a status, so that no call waits
			}
			result = balancer.PickResult{SubConn: taken.conn.sc, Done: func(info balancer.DoneInfo) { a.done(p.policy, taken, &info) }, Metadata: a.authority(endpoint)}
			return result, nil, nil
		case connectivity.Idle, connectivity.Connecting:
			if failure == nil || a.insisted {
				if err := a.wait(); err != nil {
					return balancer.PickResult{}, nil, err
				}
				a.waited = a.waited.with(endpoint)
				return balancer.PickResult{}, endpoint, nil
			}
		}
		a.unreachable = a.unreachable.with(endpoint)
		next, err := a.pipeline.Pick()
		switch {
		case err == nil && !a.unreachable[next]:
			endpoint = next
		case err == nil && !a.insisted && !a.waited[next]:
			endpoint, insist, a.insisted = next, true, true
		default:
			a.unreachable, a.waited = nil, nil // a call that waits for ready starts over
			return balancer.PickResult{}, nil, p.unreachable(a, failure)
		}
	}
}

// refusal fails every call of a channel that must not carry any.
type refusal struct{ err error }

var _ balancer.Picker = refusal{}

// Pick fails. The error is a status, so that calls that wait for ready do not
// wait for ever.
func (r refusal) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if a := attemptOf(info.Ctx); a != nil {
		a.marks.pickFailed(outcome.NoConfig, r.err)
	}
	return balancer.PickResult{}, status.Error(codes.Unavailable, r.err.Error())
}

// attempt is one attempt of a gRPC call, carried to the picker in the attempt's
// context.
type attempt struct {
	pipeline *pipeline.Attempt
	ctx      context.Context
	carried  attemptContext

	// picking is held while an endpoint is picked: gRPC picks again, on the
	// goroutine that receives, when a server says that it did not process the
	// request, and the call may end at the same time.
	picking sync.Mutex
	over    bool // guarded by picking; the pipeline has ended the attempt
	// unreachable are the endpoints that could not be connected to, waited those
	// for which this attempt has waited; guarded by picking.
	unreachable, waited endpoints
	insisted            bool // guarded by picking; a connect was asked for in spite of the back-off
	parting             bool // guarded by picking; there is no other endpoint, and the attempt stays with one that has left
	// pending is where the attempt counts while it waits for a connection; nil
	// otherwise; guarded by picking.
	pending *breaker.Gate
	marks   marks
	// opts are those that the call is made with.
	opts []grpc.CallOption
	// endpointHost is whether the authority is the endpoint's host name.
	endpointHost bool
}

// authority is the pseudo-header of an endpoint's host name (gRFC A81); nil
// leaves the authority as it is.
func (a *attempt) authority(endpoint *upstream.Endpoint) metadata.MD {
	name := endpoint.Hostname()
	if !a.endpointHost || name == "" {
		return nil
	}
	return metadata.Pairs(":authority", name)
}

// endpoints is a set. The nil set is empty.
type endpoints map[*upstream.Endpoint]bool

func (e endpoints) with(endpoint *upstream.Endpoint) endpoints {
	if e == nil {
		e = make(endpoints)
	}
	e[endpoint] = true
	return e
}

type attemptKey struct{}

// attemptContext carries an attempt, as part of it: a context that costs nothing.
type attemptContext struct {
	context.Context //nolint:containedctx // it is one

	attempt *attempt
}

func (c *attemptContext) Value(key any) any {
	if key == (attemptKey{}) {
		return c.attempt
	}
	return c.Context.Value(key)
}

// send is the context of the attempt with the metadata that it sends; bare is whether
// the application has none.
func (a *attempt) send(ctx context.Context, md *carrier, bare bool) context.Context {
	a.carried = attemptContext{ctx, a}
	a.ctx = md.outgoing(&a.carried, bare)
	return a.ctx
}

func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// end keeps gRPC from picking again, and ends the wait for a connection. It comes
// before the pipeline ends the attempt.
func (a *attempt) end() {
	a.picking.Lock()
	defer a.picking.Unlock()
	a.over = true
	a.waitOver()
}

// wait counts the attempt among those that wait for a connection, or returns a status
// that says that there are too many. The caller holds picking.
func (a *attempt) wait() error {
	gate := a.pipeline.Cluster().Gate(a.pipeline.Priority())
	if a.pending == gate {
		return nil
	}
	a.waitOver() // in another cluster of an aggregate
	if !gate.TryPending() {
		a.pipeline.Overflowed("pending")
		_ = a.pickFailed(outcome.Overflow, errPending)
		return errPendingStatus
	}
	a.pending = gate
	return nil
}

// insists reports whether the attempt has asked for a connect in spite of the back-off.
func (a *attempt) insists() bool {
	a.picking.Lock()
	defer a.picking.Unlock()
	return a.insisted
}

// overflowed tells of a limit that the attempt has met.
func (a *attempt) overflowed(resource string) {
	a.picking.Lock()
	defer a.picking.Unlock()
	if !a.over {
		a.pipeline.Overflowed(resource)
	}
}

// waitOver ends what wait began. The caller holds picking.
func (a *attempt) waitOver() {
	if a.pending != nil {
		a.pending.ReleasePending()
		a.pending = nil
	}
}

// pickFailed remembers why the attempt was not sent. The error is no status, so
// that calls that wait for ready go on waiting.
func (a *attempt) pickFailed(kind outcome.Kind, err error) error {
	a.marks.pickFailed(kind, err)
	return err
}

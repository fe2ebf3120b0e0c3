package pipeline

import (
	"errors"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
)

// fail ends a call before any attempt.
func (c *Call) fail(kind outcome.Kind, err error) outcome.Outcome {
	return c.failOutcome(outcome.Outcome{Kind: kind, Err: err})
}

// closed ends a call before any attempt because the mesh was closed.
func (c *Call) closed() outcome.Outcome { return c.fail(outcome.Closed, upstream.ErrClosed) }

// Failed is the outcome of a response that broke off, whose error says where in the
// call that happened. It is for adapters, before they call Finish.
func (c *Call) Failed(o outcome.Outcome) outcome.Outcome { return c.failOutcome(o) }

// failOutcome adds to an error where in the call it happened.
func (c *Call) failOutcome(o outcome.Outcome) outcome.Outcome {
	if o.Err == nil {
		o.Err = errors.New(o.Kind.String())
	}
	e := &meshfail.Error{
		Kind: o.Kind, Target: c.target.name, Route: c.Observed.Route, Cluster: c.Observed.Cluster,
		Attempts: c.Observed.Attempts, Sent: o.Sent || c.sent, Err: o.Err,
	}
	if a := c.attempt; a != nil {
		a.lock()
		if a.cluster != nil && a.cluster != c.cluster {
			e.Leaf = a.cluster.Name()
		}
		if a.Endpoint != nil {
			e.Endpoint = a.Endpoint.Address()
		}
		a.unlock()
	}
	o.Err = e
	return o
}

package pipeline

import (
	"context"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
)

// Faults injects faults and counts those that are active. The zero value is
// ready. Safe for concurrent use.
type Faults struct {
	mu sync.Mutex
	// active counts the faults that are capped and being injected; guarded by mu.
	active map[*discovery.Fault]uint32
}

// Answer is a response that the mesh gives itself: an injected abort, a direct
// response, a redirect.
type Answer struct {
	// Status is the HTTP status. For an abort with a gRPC status, IsGRPC is
	// true and Code holds it.
	Status int
	IsGRPC bool
	Code   uint32
	Body   []byte
	// Location is set for a redirect.
	Location string
	// Reason says what made the answer, for errors and logs.
	Reason string
}

// Inject applies a fault: it waits for the delay, if one is drawn, and returns
// the abort, if one is drawn. Delay and abort are drawn independently, the
// delay comes first (Envoy fault filter). It returns early when ctx ends.
func (f *Faults) Inject(ctx context.Context, fault *discovery.Fault, req *route.Request) (*Answer, error) {
	for i := range fault.Headers {
		if !route.MatchHeader(&fault.Headers[i], req) {
			return nil, nil
		}
	}
	delay := fault.Delay != nil && route.Draw(fault.Delay.PerMillion)
	abort := fault.Abort != nil && route.Draw(fault.Abort.PerMillion)
	if !delay && !abort {
		return nil, nil
	}
	if fault.MaxActive > 0 {
		if !f.enter(fault) {
			return nil, nil
		}
		defer f.leave(fault)
	}
	if delay {
		timer := time.NewTimer(fault.Delay.Fixed)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if !abort {
		return nil, nil
	}
	return &Answer{
		Status: fault.Abort.HTTPStatus, IsGRPC: fault.Abort.IsGRPC, Code: fault.Abort.GRPCStatus,
		Body: []byte("fault filter abort"), Reason: "fault filter abort",
	}, nil
}

// enter counts a fault in, unless as many as are allowed are active already.
func (f *Faults) enter(fault *discovery.Fault) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active[fault] >= fault.MaxActive {
		return false
	}
	if f.active == nil {
		f.active = make(map[*discovery.Fault]uint32)
	}
	f.active[fault]++
	return true
}

func (f *Faults) leave(fault *discovery.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active[fault]--
	if f.active[fault] == 0 {
		delete(f.active, fault)
	}
}

// GRPCCode is the gRPC status of the answer. An HTTP status is mapped as gRFC
// A33 says ("HTTP to gRPC Status Code Mapping").
func (a *Answer) GRPCCode() codes.Code {
	if a.IsGRPC {
		return codes.Code(a.Code)
	}
	switch a.Status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

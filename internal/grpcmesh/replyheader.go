package grpcmesh

import (
	"net/http"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// replyHeader applies the response header operations of the route and filters to what the
// application sets: it keeps that until the headers are sent. A call that fails
// before is answered in trailers alone, as without a mesh, so that its caller
// may try again.
type replyHeader struct {
	grpc.ServerTransportStream
	decision *route.Decision
	request  *route.Request
	facts    route.Facts
	exchange *filter.Exchange // nil if there are no filters

	mu   sync.Mutex
	set  metadata.MD // guarded by mu; by the application
	sent bool        // guarded by mu
}

// SetHeader keeps headers for later.
func (r *replyHeader) SetHeader(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		return r.ServerTransportStream.SetHeader(md) // which says that it is too late
	}
	r.set = metadata.Join(r.set, md)
	return nil
}

// SendHeader sends what was kept, and md.
func (r *replyHeader) SendHeader(md metadata.MD) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		return r.ServerTransportStream.SendHeader(md) // which says that it is too late
	}
	return r.ServerTransportStream.SendHeader(r.takeLocked(md))
}

// flush hands over what was kept: the response begins.
func (r *replyHeader) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent {
		return nil
	}
	return r.ServerTransportStream.SetHeader(r.takeLocked(nil))
}

func (r *replyHeader) takeLocked(md metadata.MD) metadata.MD {
	r.sent = true
	all := metadata.Join(r.set, md)
	r.decision.MutateResponse(header(all), r.request, &r.facts)
	if r.exchange.Responds() {
		r.exchange.Response(http.StatusOK, header(all))
	}
	return all
}

package grpcmesh

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// marks is what an attempt has been seen to do. gRPC's status alone does not
// tell whether a peer answered or a connection broke.
type marks struct {
	mu       sync.Mutex
	sent     bool         // guarded by mu; request headers left
	answered bool         // guarded by mu; something came back
	trailer  metadata.MD  // guarded by mu; of the answer
	err      error        // guarded by mu; what gRPC's own attempt failed of
	pickKind outcome.Kind // guarded by mu; why no endpoint was found
	pickErr  error        // guarded by mu
}

func (m *marks) pickFailed(kind outcome.Kind, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pickKind, m.pickErr = kind, err
}

// ended takes note of how gRPC's own attempt ended. It makes another if nothing was
// sent, and wants to if the server says that it did not process the request.
func (m *marks) ended(info *balancer.DoneInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if info.BytesSent {
		m.sent, m.pickErr = true, nil
	}
	m.answered = m.answered || info.BytesReceived
	m.trailer, m.err = info.Trailer, info.Err
}

// refused reports whether a server has had the request and did not process it, and
// remembers that this is why the attempt has failed: then only gRPC picks once more.
func (m *marks) refused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.sent {
		return false
	}
	m.pickKind, m.pickErr = outcome.RefusedStream, errRefused
	if m.err != nil {
		m.pickErr = fmt.Errorf("%w: %w", errRefused, m.err)
	}
	return true
}

// isRefused reports whether refused has said so.
func (m *marks) isRefused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent && m.pickErr != nil
}

// trailer is that of the answer.
func (a *attempt) trailer() metadata.MD {
	a.marks.mu.Lock()
	defer a.marks.mu.Unlock()
	return a.marks.trailer
}

// done is called by gRPC when the attempt has ended on a sub-connection, before
// the call returns. What a stats handler would be told costs fifteen allocations
// more.
func (a *attempt) done(p *policy, taken *load, info *balancer.DoneInfo) {
	p.ended(taken)
	a.marks.ended(info)
	endpoint := taken.conn.connecting.endpoint
	obey(endpoint, info.Trailer)
	findReport(endpoint, info.Trailer)
}

// failHeader is upstream.FailHeader as gRPC spells it.
const failHeader = "x-envoy-immediate-health-check-fail"

// obey makes an endpoint fail its health checks if its answer asks for that.
func obey(endpoint *upstream.Endpoint, md metadata.MD) {
	if endpoint != nil && md[failHeader] != nil {
		endpoint.FailNow()
	}
}

// isChecked reports whether the endpoint that the attempt goes to may ask to fail
// its health checks, in the headers of its answer.
func (a *attempt) isChecked() bool {
	config := a.pipeline.Cluster().Config()
	return config != nil && config.HealthCheck != nil
}

// endpoint is the one that the attempt was sent to last, nil before.
func (a *attempt) endpoint() *upstream.Endpoint {
	a.picking.Lock()
	defer a.picking.Unlock()
	return a.pipeline.Endpoint
}

package grpcmesh

import (
	"context"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/inboardmesh/inboard/outcome"
)

// marks is what an attempt has been seen to do. gRPC's status alone does not
// tell whether a peer answered or a connection broke.
type marks struct {
	mu       sync.Mutex
	sent     bool         // guarded by mu; request headers left
	answered bool         // guarded by mu; response headers or trailers came
	pickKind outcome.Kind // guarded by mu; why no endpoint was found
	pickErr  error        // guarded by mu
}

func (m *marks) pickFailed(kind outcome.Kind, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pickKind, m.pickErr = kind, err
}

// clientStats marks the attempts that it finds in the context of a call.
type clientStats struct{}

var _ stats.Handler = clientStats{}

func (clientStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (clientStats) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.OutHeader:
		if a := attemptOf(ctx); a != nil {
			a.marks.mu.Lock()
			a.marks.sent, a.marks.pickErr = true, nil
			a.marks.mu.Unlock()
		}
	case *stats.InHeader:
		answered(ctx, s.Header)
	case *stats.InTrailer:
		answered(ctx, s.Trailer)
	}
}

// failHeader is upstream.FailHeader as gRPC spells it.
const failHeader = "x-envoy-immediate-health-check-fail"

// answered marks the attempt of a context, to which an answer came.
func answered(ctx context.Context, md metadata.MD) {
	a := attemptOf(ctx)
	if a == nil {
		return
	}
	a.marks.mu.Lock()
	a.marks.answered = true
	a.marks.mu.Unlock()
	if md[failHeader] != nil {
		a.failNow()
	}
}

func (clientStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (clientStats) HandleConn(context.Context, stats.ConnStats) {}

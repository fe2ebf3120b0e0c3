package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/hangup"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// directConns holds the channels to hosts that the mesh does not know.
type directConns struct {
	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // guarded by mu; by "host:port"
	closed bool                        // guarded by mu
	lines  hangup.Lines
}

// around returns the channel for a target that the control plane does not know,
// if the outbound policy lets such calls go out; nil otherwise.
func (a *Adapter) around(ctx context.Context, target *pipeline.Target) (*grpc.ClientConn, error) {
	if !a.mayGoAround(target.Name()) {
		return nil, nil
	}
	if _, err := target.Config(ctx); !errors.Is(err, discovery.ErrNotFound) {
		return nil, nil
	}
	return a.direct.get(target.Name())
}

func (d *directConns) get(name string) (*grpc.ClientConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, upstream.ErrClosed
	}
	if cc := d.conns[name]; cc != nil {
		return cc, nil
	}
	cc, err := grpc.NewClient("dns:///"+name,
		grpc.WithTransportCredentials(d.lines.Secure(insecure.NewCredentials())),
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			return unreachable(name, invoker(ctx, method, req, reply, cc, opts...))
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := streamer(ctx, desc, cc, method, opts...)
			return stream, unreachable(name, err)
		}),
	)
	if err != nil {
		return nil, err
	}
	if d.conns == nil {
		d.conns = make(map[string]*grpc.ClientConn)
	}
	d.conns[name] = cc
	return cc, nil
}

// unreachable says of a host that cannot be reached why it was called directly: a
// misspelt name is the usual reason.
func unreachable(name string, err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok || s.Code() != codes.Unavailable {
		return err
	}
	p := s.Proto()
	p.Message = fmt.Sprintf("mesh: target %q: called directly, as the control plane does not know it: %s", name, p.GetMessage())
	return status.FromProto(p).Err()
}

func (d *directConns) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.lines.End()
	var errs []error
	for _, cc := range d.conns {
		errs = append(errs, cc.Close())
	}
	clear(d.conns)
	return errors.Join(errs...)
}

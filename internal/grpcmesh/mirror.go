package grpcmesh

import (
	"context"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/outcome"
)

// mirrorConns holds the channels of copies: the application's may be closed while
// one is under way, and its interceptors and stats handlers are for its own calls.
// They share no connections with them, but the limits and the counters.
type mirrorConns struct {
	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // guarded by mu; by the target's name
	closed bool                        // guarded by mu
}

func (c *mirrorConns) get(a *Adapter, target string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, upstream.ErrClosed
	}
	if cc := c.conns[target]; cc != nil {
		return cc, nil
	}
	cc, err := grpc.NewClient(schemes[0]+":///"+target, a.channelOptions()...)
	if err != nil {
		return nil, err
	}
	if c.conns == nil {
		c.conns = make(map[string]*grpc.ClientConn)
	}
	c.conns[target] = cc
	return cc, nil
}

func (c *mirrorConns) close() error {
	c.mu.Lock()
	conns := c.conns
	c.conns, c.closed = nil, true
	c.mu.Unlock()
	var err error
	for _, cc := range conns {
		if e := cc.Close(); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// copied is what the copies of a call have of it. Nobody changes it.
type copied struct {
	adapter *Adapter
	method  string
	host    string
	md      metadata.MD
	opts    []grpc.CallOption
	path    string
}

// copied is for the time after Routed.
func (c *clientCall) copied(e encoder) copied {
	md := make(metadata.MD, len(c.routed))
	for name, values := range c.routed {
		md[name] = slices.Clone(values)
	}
	return copied{adapter: c.adapter, method: c.method, host: c.host, md: md, opts: mirroredOptions(c.opts, e), path: c.view.Path}
}

// mirroredOptions are the options of a copy: those that say how a message is sent.
// The others have to do with the application's reply.
func mirroredOptions(opts []grpc.CallOption, e encoder) []grpc.CallOption {
	var own []grpc.CallOption
	for _, o := range opts {
		switch o.(type) {
		case grpc.CompressorCallOption, grpc.PerRPCCredsCallOption, grpc.MaxSendMsgSizeCallOption:
			own = append(own, o)
		}
	}
	return append(own, grpc.ForceCodecV2(rawCodec{name: e.subtype}))
}

// call is one copy's call.
func (c *copied) call(m *pipeline.Mirror) clientCall {
	return clientCall{
		adapter: c.adapter, method: c.method, routed: maps.Clone(c.md),
		opts: append(slices.Clip(c.opts), grpc.CallAuthority(m.Host(c.host))),
		view: route.Request{Path: c.path},
	}
}

// mirror has copies of the request sent. It is encoded for them now: when the call
// has ended, the message is the application's again.
func (u *unaryCall) mirror(mirrors []*pipeline.Mirror) {
	e := encoderOf(u.opts)
	message, reason := e.encode(u.request)
	if reason != "" {
		for _, m := range mirrors {
			m.Drop(reason)
		}
		return
	}
	c := u.copied(e)
	for _, m := range mirrors {
		m.Go(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, m.Limit)
			defer cancel()
			c.sendTo(ctx, m, message)
		})
	}
}

// sendTo sends one copy of a unary call.
func (c *copied) sendTo(ctx context.Context, m *pipeline.Mirror, message raw) {
	u := &unaryCall{clientCall: c.call(m), request: message, response: new(raw)}
	u.invoker = func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
		cc, err := c.adapter.mirrors.get(c.adapter, m.TargetName())
		if err != nil {
			return err
		}
		return cc.Invoke(ctx, method, req, reply, opts...)
	}
	if o := m.Run(ctx, &u.call, u); o.Kind == outcome.Response {
		u.call.Finish(o)
	}
}

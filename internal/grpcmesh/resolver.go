package grpcmesh

import (
	"context"
	"sync"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"

	"github.com/inboardmesh/inboard/internal/pipeline"
)

// resolverBuilder resolves mesh targets. It resolves to nothing but the target
// itself: endpoints are the business of the load-balancing policy.
type resolverBuilder struct {
	scheme   string
	outbound *pipeline.Outbound
}

var _ resolver.Builder = (*resolverBuilder)(nil)

func (b *resolverBuilder) Scheme() string { return b.scheme }

func (b *resolverBuilder) Build(t resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	name, err := targetName(t.String())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &meshResolver{target: b.outbound.Target(name), cc: cc, cancel: cancel}
	r.loop.Go(func() { r.run(ctx) })
	return r, nil
}

// meshResolver tells the policy whenever the target's configuration changed, so
// that it lets go of endpoints that left.
type meshResolver struct {
	target *pipeline.Target
	cc     resolver.ClientConn
	cancel context.CancelFunc
	loop   sync.WaitGroup
}

type targetKey struct{}

// run ends when the channel closes the resolver.
func (r *meshResolver) run(ctx context.Context) {
	for {
		_, changed := r.target.Watch()
		// The attribute is a new value each time, or the channel would drop
		// the update as one that changes nothing.
		state := resolver.State{Attributes: attributes.New(targetKey{}, &channelTarget{r.target})}
		_ = r.cc.UpdateState(state) // what the policy refuses, it tells the calls
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// channelTarget carries the target from the resolver to the policy.
type channelTarget struct{ *pipeline.Target }

func (r *meshResolver) ResolveNow(resolver.ResolveNowOptions) {}

func (r *meshResolver) Close() {
	r.cancel()
	r.loop.Wait()
}

package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/explain"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
)

// Explain says what a channel to a target would do with a call of a method, which
// is not made. The metadata are the outgoing ones of ctx.
func (a *Adapter) Explain(ctx context.Context, target, method string, opts ...grpc.CallOption) (*explain.Explanation, error) {
	name, err := targetName(target)
	if err != nil {
		return nil, err
	}
	service, short, ok := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	if !strings.HasPrefix(method, "/") || !ok || service == "" || short == "" {
		return nil, fmt.Errorf("mesh: method %q: write it like \"/package.Service/Method\"", method)
	}
	req, md, _ := requestOf(ctx, name, method, opts)
	req.Source = a.options.Outbound.Caller()
	q := &explain.Question{
		Protocol: observe.GRPC, Target: name, Request: req, Headers: header(md),
		Facts:    route.Facts{Protocol: "HTTP/2", Start: time.Now()},
		Unhedged: func() string { return unhedged(md, method) },
	}
	config, release, err := a.options.Outbound.Peek(ctx, name)
	switch {
	case errors.Is(err, discovery.ErrNotFound) && a.mayGoAround(name):
		return q.New(explain.AroundMesh, err.Error()), nil
	case errors.Is(err, discovery.ErrNotFound):
		return q.New(explain.Refused, fmt.Sprintf("by the outbound policy (registry only): %v", err)), nil
	case err != nil:
		return q.New(explain.NoConfig, err.Error()), nil
	}
	defer release()
	return q.By(ctx, config), nil
}

package controlplane

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

const (
	// callTime is how long a call may take that is no stream, from its headers on. One
	// takes milliseconds; one whose message does not come would wait for ever.
	callTime = 30 * time.Second
	// maxShort bounds how many of them there may be at once, those included of which
	// only the headers have come, and maxShortOfOne those on one connection.
	maxShort      = 10_000
	maxShortOfOne = 20
)

// tap bounds calls that are no streams, before there is anything of them: what runs for
// a call is asked only when its message has come. Streams are bounded where they begin.
func (c *connections) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	switch info.FullMethodName {
	case discovery.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName,
		discovery.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName,
		grpc_health_v1.Health_Watch_FullMethodName:
		return ctx, nil
	}
	var conn *connection
	if from, ok := peer.FromContext(ctx); ok {
		if of, ok := from.AuthInfo.(countedInfo); ok {
			conn = of.conn
		}
	}
	if !c.beginShort(conn) {
		return nil, status.Error(codes.ResourceExhausted, "too many calls wait for their messages or answers: try again")
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	// It is done when the call has ended, however that comes.
	context.AfterFunc(ctx, func() {
		cancel()
		c.endShort(conn)
	})
	return ctx, nil
}

func (c *connections) beginShort(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.short >= maxShort || conn != nil && conn.short >= maxShortOfOne {
		return false
	}
	c.short++
	if conn != nil {
		conn.short++
	}
	return true
}

func (c *connections) endShort(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.short--
	if conn != nil {
		conn.short--
	}
}

package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// callTimeout bounds calls that must not hang. It takes no time in a bubble.
const callTimeout = 30 * time.Second

// backend is a service whose answers the test scripts. What is not scripted
// succeeds: unary calls and messages are echoed.
type backend struct {
	grpc_testing.UnimplementedTestServiceServer
	name string
	// calls counts the calls that arrived.
	calls atomic.Int64
	// before runs first in every call with its number, from 1. Its error is the
	// call's status.
	before func(ctx context.Context, n int64) error
	output func(*grpc_testing.StreamingOutputCallRequest, grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error
	duplex func(grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error
}

func (b *backend) begin(ctx context.Context) error {
	n := b.calls.Add(1)
	if b.before == nil {
		return nil
	}
	return b.before(ctx, n)
}

func (b *backend) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, b.begin(ctx)
}

func (b *backend) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	if err := b.begin(ctx); err != nil {
		return nil, err
	}
	return &grpc_testing.SimpleResponse{Username: b.name, Payload: in.GetPayload()}, nil
}

func (b *backend) StreamingOutputCall(in *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	if err := b.begin(stream.Context()); err != nil {
		return err
	}
	if b.output != nil {
		return b.output(in, stream)
	}
	for _, p := range in.GetResponseParameters() {
		if err := stream.Send(output(make([]byte, p.GetSize()))); err != nil {
			return err
		}
	}
	return nil
}

func (b *backend) StreamingInputCall(stream grpc.ClientStreamingServer[grpc_testing.StreamingInputCallRequest, grpc_testing.StreamingInputCallResponse]) error {
	if err := b.begin(stream.Context()); err != nil {
		return err
	}
	var size int32
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: size})
		}
		if err != nil {
			return err
		}
		size += int32(len(in.GetPayload().GetBody()))
	}
}

func (b *backend) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	if err := b.begin(stream.Context()); err != nil {
		return err
	}
	if b.duplex != nil {
		return b.duplex(stream)
	}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(output(in.GetPayload().GetBody())); err != nil {
			return err
		}
	}
}

func output(body []byte) *grpc_testing.StreamingOutputCallResponse {
	return &grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: body}}
}

func outputRequest(body string) *grpc_testing.StreamingOutputCallRequest {
	return &grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}}
}

func inputRequest(size int) *grpc_testing.StreamingInputCallRequest {
	return &grpc_testing.StreamingInputCallRequest{Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
}

// failFirst fails the first n calls with a status that came in trailers only.
func failFirst(n int64, code codes.Code) func(context.Context, int64) error {
	return func(_ context.Context, call int64) error {
		if call <= n {
			return status.Error(code, "scripted failure")
		}
		return nil
	}
}

// hang waits until the caller gives up.
func hang(ctx context.Context, _ int64) error {
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

// incoming returns the values of a request's metadata.
func incoming(ctx context.Context, name string) []string {
	md, _ := metadata.FromIncomingContext(ctx)
	return md.Get(name)
}

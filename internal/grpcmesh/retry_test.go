package grpcmesh_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// retrying is a route that tries again, n times at most.
func retrying(n uint32, on retry.Conditions) *discovery.Route {
	r := forward("main")
	r.Forward.Retry = &retry.Policy{MaxRetries: n, On: on}
	return r
}

// callKind makes one whole call and returns its error.
type callKind struct {
	name string
	call func(ctx context.Context, client grpc_testing.TestServiceClient) error
}

var callKinds = []callKind{
	{"unary", callUnary},
	{"client streaming", callClientStreaming},
	{"server streaming", callServerStreaming},
	{"bidirectional", callBidirectional},
}

func callUnary(ctx context.Context, client grpc_testing.TestServiceClient) error {
	reply, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte("x")}})
	if err == nil && string(reply.GetPayload().GetBody()) != "x" {
		return errors.New("the reply is not the request's")
	}
	return err
}

func callClientStreaming(ctx context.Context, client grpc_testing.TestServiceClient) error {
	stream, err := client.StreamingInputCall(ctx)
	if err != nil {
		return err
	}
	for i := range 5 {
		if err := stream.Send(inputRequest(i)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	reply, err := stream.CloseAndRecv()
	if err == nil && reply.GetAggregatedPayloadSize() != 0+1+2+3+4 {
		return errors.New("the messages did not arrive, each once")
	}
	return err
}

func callServerStreaming(ctx context.Context, client grpc_testing.TestServiceClient) error {
	stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
		ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 3}, {Size: 5}},
	})
	if err != nil {
		return err
	}
	var sizes []int
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		sizes = append(sizes, len(m.GetPayload().GetBody()))
	}
	if !slices.Equal(sizes, []int{3, 5}) {
		return errors.New("the messages did not arrive, each once")
	}
	return nil
}

func callBidirectional(ctx context.Context, client grpc_testing.TestServiceClient) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for _, body := range []string{"a", "b", "c"} {
		if err := stream.Send(outputRequest(body)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if string(m.GetPayload().GetBody()) != body {
			return errors.New("the reply is not the request's")
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return errors.New("the stream did not end")
	}
	return nil
}

func TestBR3_ATrailersOnlyFailureIsRetriedAsThePolicySays(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		on       retry.Conditions
		retries  uint32
		code     codes.Code
		failures int64
		want     codes.Code
		calls    int64
	}{
		{"unavailable with unavailable", retry.OnGRPCUnavailable, 2, codes.Unavailable, 2, codes.OK, 3},
		{"more failures than retries", retry.OnGRPCUnavailable, 2, codes.Unavailable, 3, codes.Unavailable, 3},
		{"cancelled with cancelled", retry.OnGRPCCancelled, 1, codes.Canceled, 1, codes.OK, 2},
		{"deadline exceeded with deadline-exceeded", retry.OnGRPCDeadlineExceeded, 1, codes.DeadlineExceeded, 1, codes.OK, 2},
		{"internal with internal", retry.OnGRPCInternal, 1, codes.Internal, 1, codes.OK, 2},
		{"resource exhausted with resource-exhausted", retry.OnGRPCResourceExhausted, 1, codes.ResourceExhausted, 1, codes.OK, 2},
		{"unavailable with internal", retry.OnGRPCInternal, 2, codes.Unavailable, 1, codes.Unavailable, 1},
		{"unavailable with the conditions for no answer", retry.On5xx | retry.OnReset | retry.OnConnectFailure, 2, codes.Unavailable, 1, codes.Unavailable, 1},
		{"not found with everything", ^retry.Conditions(0), 2, codes.NotFound, 1, codes.NotFound, 1},
		{"five attempts at most (gRFC A44)", retry.OnGRPCUnavailable, 9, codes.Unavailable, 100, codes.Unavailable, 5},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{before: failFirst(tt.failures, tt.code)}
					f.serve(endpoint, b)
					f.configure(retrying(tt.retries, tt.on), cluster("main", endpoint))
					err := kind.call(withTimeout(t), f.client())
					if status.Code(err) != tt.want || b.calls.Load() != tt.calls {
						t.Errorf("%v after %d calls, want %v after %d", err, b.calls.Load(), tt.want, tt.calls)
					}
					synctest.Wait()
					if calls := f.seen.ended(observe.Outbound); len(calls) != 1 || calls[0].Attempts != int(tt.calls) {
						t.Errorf("observed %+v", calls)
					}
				})
			})
		}
	}
}

func TestBR3_AStreamThatFailsAfterAMessageIsNotRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{output: func(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
			if err := stream.Send(output([]byte("first"))); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "scripted failure")
		}}
		f.serve(endpoint, b)
		f.configure(retrying(3, retry.OnGRPCUnavailable), cluster("main", endpoint))
		stream, err := f.client().StreamingOutputCall(withTimeout(t), &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil || string(m.GetPayload().GetBody()) != "first" {
			t.Fatalf("first message: %v, %v", m, err)
		}
		_, err = stream.Recv()
		if s := status.Convert(err); s.Code() != codes.Unavailable || s.Message() != "scripted failure" || b.calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}

// gRFC A6 takes an RPC for committed when the headers of a response have come (BR13), a
// proxy when it has passed them on; BR3 has a failure in trailers before any message
// retried. Both hold in a process: headers commit when the application has seen them,
// which those of a stream are by Header, and those of a unary call at its end.
func TestBR3_AStreamThatFailsAfterItsHeadersIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{}
		b.output = func(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
			if err := stream.SendHeader(metadata.Pairs("x-a", "1")); err != nil {
				return err
			}
			if b.calls.Load() == 1 {
				return status.Error(codes.Unavailable, "scripted failure")
			}
			return stream.Send(output([]byte("x")))
		}
		f.serve(endpoint, b)
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		stream, err := f.client().StreamingOutputCall(withTimeout(t), &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || string(m.GetPayload().GetBody()) != "x" || b.calls.Load() != 2 {
			t.Errorf("%v, %v after %d calls", m, err, b.calls.Load())
		}
	})
}

func TestBR3_BR13_AUnaryCallThatFailsAfterItsHeadersIsRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: func(ctx context.Context, n int64) error {
			if err := grpc.SendHeader(ctx, metadata.Pairs("x-call", strconv.FormatInt(n, 10))); err != nil || n > 1 {
				return err
			}
			return status.Error(codes.Unavailable, "scripted failure")
		}}
		f.serve(endpoint, b)
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		var seen metadata.MD
		_, err := f.client().UnaryCall(withTimeout(t), &grpc_testing.SimpleRequest{}, grpc.Header(&seen))
		if got := seen.Get("x-call"); err != nil || b.calls.Load() != 2 || !slices.Equal(got, []string{"2"}) {
			t.Errorf("%v after %d calls, with the headers of %v", err, b.calls.Load(), got)
		}
	})
}

func TestHeaderBeforeAMessageWaitsForTheAttemptThatAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		b := &backend{before: func(ctx context.Context, n int64) error {
			if n == 1 {
				return status.Error(codes.Unavailable, "scripted failure")
			}
			return grpc.SetHeader(ctx, metadata.Pairs("x-call", "2"))
		}}
		f.serve(endpoint, b)
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		stream, err := f.client().StreamingOutputCall(withTimeout(t), &grpc_testing.StreamingOutputCallRequest{
			ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		md, err := stream.Header()
		if err != nil || !slices.Equal(md.Get("x-call"), []string{"2"}) {
			t.Errorf("header %v, %v", md, err)
		}
		if m, err := stream.Recv(); err != nil || len(m.GetPayload().GetBody()) != 1 {
			t.Errorf("message %v, %v", m, err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end: %v", err)
		}
	})
}

func TestHeaderOfAFailedStreamLeavesTheStatusToRecv(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve(endpoint, &backend{before: failFirst(100, codes.PermissionDenied)})
		f.forwardTo(endpoint)
		stream, err := f.client().StreamingOutputCall(withTimeout(t), &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		// As in gRPC: Header does not return the status.
		if md, err := stream.Header(); md != nil || err != nil {
			t.Errorf("header %v, %v", md, err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("status %v", err)
		}
	})
}

// BR13: what the application has seen cannot be taken back.
func TestBR13_HeaderCommits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		proceed := make(chan struct{})
		b := &backend{output: func(_ *grpc_testing.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
			if err := stream.SendHeader(metadata.Pairs("x-a", "1")); err != nil {
				return err
			}
			<-proceed
			return status.Error(codes.Unavailable, "scripted failure")
		}}
		f.serve(endpoint, b)
		f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
		stream, err := f.client().StreamingOutputCall(withTimeout(t), &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if md, err := stream.Header(); err != nil || len(md.Get("x-a")) != 1 {
			t.Errorf("header %v, %v", md, err)
		}
		close(proceed)
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || b.calls.Load() != 1 {
			t.Errorf("%v after %d calls", err, b.calls.Load())
		}
	})
}

func TestBR19_RetriesTellTheServerOfTheAttemptsBefore(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var seen [][]string
				b := &backend{before: func(ctx context.Context, n int64) error {
					seen = append(seen, incoming(ctx, "grpc-previous-rpc-attempts"))
					return failFirst(2, codes.Unavailable)(ctx, n)
				}}
				f.serve(endpoint, b)
				f.configure(retrying(2, retry.OnGRPCUnavailable), cluster("main", endpoint))
				if err := kind.call(withTimeout(t), f.client()); err != nil {
					t.Fatal(err)
				}
				if !slices.EqualFunc(seen, [][]string{nil, {"1"}, {"2"}}, slices.Equal) {
					t.Errorf("grpc-previous-rpc-attempts: %q", seen)
				}
			})
		})
	}
}

func TestBR8_AServersPushbackIsObeyed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pushback string
		calls    int64
		wait     time.Duration
	}{
		{"700", 2, 700 * time.Millisecond},
		{"-1", 1, 0},
		{"soon", 1, 0},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.pushback+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					b := &backend{before: func(ctx context.Context, n int64) error {
						if n > 1 {
							return nil
						}
						if err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", tt.pushback)); err != nil {
							return err
						}
						return status.Error(codes.Unavailable, "scripted failure")
					}}
					f.serve(endpoint, b)
					f.configure(retrying(1, retry.OnGRPCUnavailable), cluster("main", endpoint))
					client := f.client()
					start := time.Now()
					err := kind.call(withTimeout(t), client)
					if got := time.Since(start); b.calls.Load() != tt.calls || got != tt.wait || (err == nil) != (tt.calls == 2) {
						t.Errorf("%v after %d calls and %v", err, b.calls.Load(), got)
					}
				})
			})
		}
	}
}

func TestBR16_PreviousHostsAreAvoided(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				bad, good := &backend{before: failFirst(1000, codes.Unavailable)}, &backend{}
				f.serve("10.0.0.1:1", bad)
				f.serve("10.0.0.2:1", good)
				route := retrying(1, retry.OnGRPCUnavailable)
				route.Forward.Retry.AvoidPreviousHosts = true
				f.configure(route, cluster("main", "10.0.0.1:1", "10.0.0.2:1"))
				client := f.client()
				for range 50 {
					if err := kind.call(withTimeout(t), client); err != nil {
						t.Fatal(err)
					}
				}
				if bad.calls.Load() == 0 || good.calls.Load() != 50 {
					t.Errorf("%d calls at the bad server, %d at the good one", bad.calls.Load(), good.calls.Load())
				}
			})
		})
	}
}

// TestABrokenConnectionIsAReset: for gRPC as for HTTP it is retried by the
// conditions for no answer, and by unavailable, which is its status.
func TestABrokenConnectionIsAReset(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		on    retry.Conditions
		calls int64
	}{
		{"no policy", 0, 1},
		{"reset", retry.OnReset, 2},
		{"5xx", retry.On5xx, 2},
		{"unavailable", retry.OnGRPCUnavailable, 2},
		{"connect-failure", retry.OnConnectFailure, 1},
	}
	for _, tt := range tests {
		for _, kind := range callKinds {
			t.Run(tt.name+", "+kind.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					f := newFixture(t)
					var dying *server
					bad := &backend{before: func(ctx context.Context, _ int64) error {
						go dying.grpc.Stop() // ends with the handler below
						<-ctx.Done()
						return ctx.Err()
					}}
					good := &backend{}
					dying = f.serve("10.0.0.1:1", bad)
					f.serve("10.0.0.2:1", good)
					// Priority 1 is for when the first cannot be reached any more.
					c := cluster("main", "10.0.0.1:1")
					second := cluster("main", "10.0.0.2:1").Endpoints.Localities[0]
					second.Priority = 1
					c.Endpoints.Localities = append(c.Endpoints.Localities, second)
					f.configure(retrying(1, tt.on), c)
					err := kind.call(withTimeout(t), f.client())
					if got := bad.calls.Load() + good.calls.Load(); got != tt.calls {
						t.Fatalf("%v after %d calls, want %d", err, got, tt.calls)
					}
					if tt.calls > 1 {
						if err != nil {
							t.Errorf("after a retry: %v", err)
						}
						return
					}
					failure, ok := errors.AsType[*meshfail.Error](err)
					if !ok || failure.Kind != outcome.Reset || status.Code(err) != codes.Unavailable || failure.SafeToRetry() {
						t.Errorf("%v, %+v", status.Code(err), failure)
					}
				})
			})
		}
	}
}

package grpcmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

const (
	mainAddress   = "10.0.0.1:9090"
	shadowAddress = "10.0.0.2:9090"
	// mirrorBound is how long a copy may go on when its route has no timeout.
	mirrorBound = 15 * time.Second
)

// mirrorTo configures the target: calls go to one endpoint, copies to another.
func (f *fixture) mirrorTo(edit ...func(*discovery.Route)) {
	r := forward("main")
	r.Forward.Mirrors = []discovery.Mirror{{Cluster: "shadow", PerMillion: 1_000_000}}
	for _, e := range edit {
		e(r)
	}
	f.configure(r, cluster("main", mainAddress), cluster("shadow", shadowAddress))
}

// mirrored returns the events of copies so far.
func (r *recorder) mirrored() []observe.MirrorEvent {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mirrors)
}

// shadow is a service that remembers what it got.
type shadow struct {
	backend
	mu    sync.Mutex
	calls []string // guarded by mu
}

func (s *shadow) note(ctx context.Context, text string) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf("%s %s %s", md.Get(":authority"), md.Get("x-user"), text))
}

func (s *shadow) seen() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *shadow) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	s.note(ctx, string(in.GetPayload().GetBody()))
	return s.backend.UnaryCall(ctx, in)
}

func (s *shadow) FullDuplexCall(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	var got []string
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			s.note(stream.Context(), strings.Join(got, ","))
			return status.Error(codes.DataLoss, "nobody cares")
		}
		if err != nil {
			return err
		}
		got = append(got, string(in.GetPayload().GetBody()))
		if err := stream.Send(output([]byte("dropped"))); err != nil {
			return err
		}
	}
}

func unaryRequest(body string) *grpc_testing.SimpleRequest {
	return &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte(body)}}
}

func asUser(tb testing.TB) context.Context {
	tb.Helper()
	return metadata.AppendToOutgoingContext(withTimeout(tb), "x-user", "ada")
}

func TestBU8_UnaryCallsAreCopied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.mirrorTo()
		s := new(shadow)
		s.before = func(context.Context, int64) error { return status.Error(codes.DataLoss, "nobody cares") }
		f.serve(mainAddress, &backend{name: "main"})
		f.serve(shadowAddress, s)
		request := unaryRequest("card=7")
		var reply metadata.MD
		resp, err := f.client().UnaryCall(asUser(t), request, grpc.Header(&reply))
		proto.Reset(request) // it is the caller's again
		if err != nil || resp.GetUsername() != "main" {
			t.Errorf("%v by %q", err, resp.GetUsername())
		}
		if want := []string{"[payment.shop-shadow:9090] [ada] card=7"}; !slices.Equal(s.seen(), want) {
			t.Errorf("copies %q, want %q", s.seen(), want)
		}
		events := f.seen.mirrored()
		if len(events) != 1 || events[0].Dropped != "" || codes.Code(events[0].Outcome.Code) != codes.DataLoss ||
			events[0].Cluster != "shadow" || events[0].Endpoint != shadowAddress || events[0].Protocol != observe.GRPC {
			t.Errorf("events %+v", events)
		}
		if n := len(f.seen.tried()); n != 1 {
			t.Errorf("%d attempts: a copy is none", n)
		}
	})
}

func TestBU8_StreamsAreCopied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.mirrorTo()
		s := new(shadow)
		f.serve(mainAddress, &backend{name: "main"})
		f.serve(shadowAddress, s)
		stream, err := f.client().FullDuplexCall(asUser(t))
		if err != nil {
			t.Fatal(err)
		}
		request := outputRequest("")
		for _, body := range []string{"a", "b", "c"} {
			request.Payload.Body = []byte(body)
			if err := stream.Send(request); err != nil {
				t.Fatal(err)
			}
			got, err := stream.Recv()
			if err != nil || string(got.GetPayload().GetBody()) != body {
				t.Fatalf("%v: %q", err, got.GetPayload().GetBody())
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream ends with %v", err)
		}
		if want := []string{"[payment.shop-shadow:9090] [ada] a,b,c"}; !slices.Equal(s.seen(), want) {
			t.Errorf("copies %q, want %q", s.seen(), want)
		}
		if events := f.seen.mirrored(); len(events) != 1 || events[0].Dropped != "" || codes.Code(events[0].Outcome.Code) != codes.DataLoss {
			t.Errorf("events %+v", events)
		}
	})
}

// TestS29_AMirrorOfGRPCIsNobodysBusiness makes calls whose copies go to a cluster
// that is dead, slow or broken.
func TestS29_AMirrorOfGRPCIsNobodysBusiness(t *testing.T) {
	t.Parallel()
	shadows := []struct {
		name  string
		serve *backend // nil is nobody
		want  outcome.Kind
	}{
		{name: "dead", want: outcome.ConnectFailure},
		{name: "slow", serve: &backend{before: hang}, want: outcome.Timeout},
		{name: "broken", serve: &backend{before: failFirst(1000, codes.Unavailable)}},
	}
	for _, tt := range shadows {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const takes = 20 * time.Millisecond
				f := newFixture(t)
				f.mirrorTo()
				f.serve(mainAddress, &backend{before: func(context.Context, int64) error {
					time.Sleep(takes)
					return nil
				}})
				if tt.serve != nil {
					f.serve(shadowAddress, tt.serve)
				}
				client := f.client()
				const n = 20
				for range n {
					start := time.Now()
					_, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{})
					if took := time.Since(start); err != nil || took != takes {
						t.Errorf("%v after %v, want none after %v", err, took, takes)
					}
				}
				time.Sleep(mirrorBound) // what is still under way ends by itself
				events := f.seen.mirrored()
				if len(events) != n {
					t.Fatalf("%d copies have ended, want %d", len(events), n)
				}
				for _, e := range events {
					if e.Outcome.Kind != tt.want || e.End.Sub(e.Start) > mirrorBound {
						t.Errorf("a copy: %+v after %v, want %v", e.Outcome, e.End.Sub(e.Start), tt.want)
					}
				}
			})
		})
	}
}

func TestS29_AMirrorOfAStreamIsNobodysBusiness(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		send func(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse])
		want string        // why the copy is not whole
		ends time.Duration // of the copy, after the stream
	}{
		{name: "a message larger than what is kept", want: "too-large", send: func(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) {
			t.Helper()
			exchange(t, stream, strings.Repeat("x", 64<<10))
		}},
		{name: "a copy that does not keep up", want: "too-slow", send: func(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) {
			t.Helper()
			for range 100 {
				exchange(t, stream, strings.Repeat("x", 10<<10))
			}
		}},
		{name: "a stream that is given up", want: "incomplete", send: func(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) {
			t.Helper()
			exchange(t, stream, "x")
		}},
		{name: "a stream that was sent whole", ends: mirrorBound, send: func(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) {
			t.Helper()
			exchange(t, stream, "x")
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("the stream ends with %v", err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.mirrorTo()
				f.serve(mainAddress, &backend{})
				f.serve(shadowAddress, &backend{before: hang})
				ctx, cancel := context.WithCancel(t.Context())
				stream, err := f.client().FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				tt.send(t, stream)
				ended := time.Now()
				cancel()
				time.Sleep(mirrorBound)
				events := f.seen.mirrored()
				if len(events) != 1 || events[0].Dropped != tt.want {
					t.Fatalf("events %+v, want one that says %q", events, tt.want)
				}
				if took := max(events[0].End.Sub(ended), 0); took != tt.ends {
					t.Errorf("the copy ends %v after the stream, want %v", took, tt.ends)
				}
			})
		})
	}
}

// exchange sends a message and receives its echo.
func exchange(t *testing.T, stream grpc.BidiStreamingClient[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse], body string) {
	t.Helper()
	if err := stream.Send(outputRequest(body)); err != nil {
		t.Fatal(err)
	}
	if got, err := stream.Recv(); err != nil || len(got.GetPayload().GetBody()) != len(body) {
		t.Fatalf("%v: %d bytes, want %d", err, len(got.GetPayload().GetBody()), len(body))
	}
}

func TestBU8_ALargeMessageIsNotCopied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.mirrorTo()
		s := new(shadow)
		f.serve(mainAddress, &backend{})
		f.serve(shadowAddress, s)
		if _, err := f.client().UnaryCall(withTimeout(t), unaryRequest(strings.Repeat("x", 64<<10))); err != nil {
			t.Error(err)
		}
		if events := f.seen.mirrored(); len(events) != 1 || events[0].Dropped != "too-large" || len(s.seen()) != 0 {
			t.Errorf("events %+v, copies %d", events, len(s.seen()))
		}
	})
}

// TestBU8_ACallThatWasRetriedIsCopiedOnce counts copies beside attempts.
func TestBU8_ACallThatWasRetriedIsCopiedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.mirrorTo(func(r *discovery.Route) { r.Forward.Retry = &retry.Policy{MaxRetries: 2, On: retry.OnGRPCUnavailable} })
		s := new(shadow)
		f.serve(mainAddress, &backend{before: failFirst(2, codes.Unavailable)})
		f.serve(shadowAddress, s)
		if _, err := f.client().UnaryCall(withTimeout(t), unaryRequest("card=7")); err != nil {
			t.Error(err)
		}
		if n := len(f.seen.mirrored()); n != 1 || len(s.seen()) != 1 {
			t.Errorf("%d events, %d copies", n, len(s.seen()))
		}
	})
}

// TestBU8_CopiesOutliveTheChannelAndEndWithTheMesh closes the application's
// channel first.
func TestBU8_CopiesOutliveTheChannelAndEndWithTheMesh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.mirrorTo()
		f.serve(mainAddress, &backend{})
		f.serve(shadowAddress, &backend{before: hang})
		conn := f.channel()
		if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(f.seen.mirrored()); n != 0 {
			t.Errorf("%d copies have ended with the channel", n)
		}
		if err := f.adapter.Close(); err != nil {
			t.Error(err)
		}
		f.outbound.Close()
		if n := len(f.seen.mirrored()); n != 1 {
			t.Errorf("%d copies have ended with the mesh", n)
		}
	})
}

package grpcmesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

// A status of UNKNOWN is what HTTP's 408 is to gRPC.
func TestBT6_AServersPatienceWithItsClients(t *testing.T) {
	t.Parallel()
	type stream = grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]
	idle := func(c *discovery.FilterChain) { c.StreamIdleTimeout = time.Second }
	whole := func(c *discovery.FilterChain) { c.RequestTimeout = 2 * time.Second }
	listen := func(s stream) error {
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}
	// talk sends a message every so often, until that fails.
	talk := func(every time.Duration) func(*testing.T, grpc_testing.TestServiceClient) error {
		return func(t *testing.T, client grpc_testing.TestServiceClient) error {
			t.Helper()
			s, err := client.FullDuplexCall(withTimeout(t))
			if err != nil {
				return err
			}
			stop := make(chan struct{})
			defer close(stop)
			go func() { // ends with the call
				for s.Send(&grpc_testing.StreamingOutputCallRequest{}) == nil {
					select {
					case <-time.After(every):
					case <-stop:
						return
					}
				}
			}()
			_, err = s.Recv()
			return err
		}
	}
	unary := func(t *testing.T, client grpc_testing.TestServiceClient) error {
		t.Helper()
		return callUnary(withTimeout(t), client)
	}
	tests := []struct {
		name    string
		limit   func(*discovery.FilterChain)
		backend *backend
		call    func(*testing.T, grpc_testing.TestServiceClient) error
		message string
		took    time.Duration
	}{
		{"an application that takes too long", idle, &backend{before: hang}, unary, "stream timeout", time.Second},
		{"a request that is whole", whole, &backend{before: func(context.Context, int64) error { time.Sleep(3 * time.Second); return nil }}, unary, "", 3 * time.Second},
		{"a client that says nothing", idle, &backend{duplex: listen}, talk(time.Hour), "stream timeout", time.Second},
		{"a client that does not end", whole, &backend{duplex: listen}, talk(900 * time.Millisecond), "request timeout", 2 * time.Second},
		{"a client that moves", idle, &backend{duplex: func(s stream) error {
			for range 4 {
				if _, err := s.Recv(); err != nil {
					return err
				}
			}
			return s.Send(output([]byte("x")))
		}}, talk(900 * time.Millisecond), "", 2700 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				in := plaintext(endpoint)
				tt.limit(&in.Chains[0])
				f.serveAs(in, tt.backend)
				begin := time.Now()
				err := tt.call(t, f.plainClient(endpoint))
				took := time.Since(begin)
				want := codes.Unknown
				if tt.message == "" {
					want = codes.OK
				}
				if s := status.Convert(err); s.Code() != want || s.Message() != tt.message || took != tt.took {
					t.Errorf("%v after %v, want %q after %v", err, took, tt.message, tt.took)
				}
			})
		})
	}
}

// A client that does not read holds nobody for longer than it may stand still.
func TestBT6_V48_AClientThatDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		in := plaintext(endpoint)
		in.Chains[0].StreamIdleTimeout = time.Second
		ended := make(chan error, 1)
		f.serveAs(in, &backend{duplex: func(s grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
			for {
				if err := s.Send(output(make([]byte, 16<<10))); err != nil {
					ended <- err
					return err
				}
			}
		}})
		begin := time.Now()
		if _, err := f.plainClient(endpoint).FullDuplexCall(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; status.Convert(err).Message() != "stream timeout" || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

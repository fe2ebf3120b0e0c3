package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

func TestBT6_AStreamThatStandsStillIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve("10.0.0.1:80", &backend{duplex: func(stream grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
			for range 5 { // slow, but it moves
				if err := stream.Send(output([]byte("x"))); err != nil {
					return err
				}
				time.Sleep(900 * time.Millisecond)
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}})
		r := forward("main")
		r.Forward.IdleTimeout = new(time.Second)
		f.configure(r, cluster("main", "10.0.0.1:80"))
		begin := time.Now()
		stream, err := f.client().FullDuplexCall(withTimeout(t))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for {
			if _, err = stream.Recv(); err != nil {
				break
			}
			n++
		}
		if took := time.Since(begin); n != 5 || status.Code(err) != codes.DeadlineExceeded || took != 4*900*time.Millisecond+time.Second {
			t.Errorf("%d messages and %v after %v", n, err, took)
		}
	})
}

func TestBT6_AUnaryCallThatIsNotAnsweredIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.serve("10.0.0.1:80", &backend{before: hang})
		r := forward("main")
		r.Forward.IdleTimeout = new(time.Second)
		f.configure(r, cluster("main", "10.0.0.1:80"))
		begin := time.Now()
		err := callUnary(withTimeout(t), f.client())
		if took := time.Since(begin); status.Code(err) != codes.DeadlineExceeded || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestAConnectionWithoutCallsIsKeptAsLongAsItsClusterSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		timeout time.Duration
		kept    bool
	}{
		{"an hour", time.Hour, false},
		{"0 is for ever", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				s := f.serve(endpoint, &backend{})
				c := cluster("main", endpoint)
				c.Cluster.IdleTimeout = tt.timeout
				f.configure(forward("main"), c)
				if err := callUnary(withTimeout(t), f.client()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(59 * time.Minute)
				if n := s.connections(); n != 1 {
					t.Errorf("%d connections after 59 minutes, want 1", n)
				}
				time.Sleep(2 * time.Minute)
				if kept := s.connections() == 1; kept != tt.kept {
					t.Errorf("kept for an hour and a minute: %t, want %t", kept, tt.kept)
				}
			})
		})
	}
}

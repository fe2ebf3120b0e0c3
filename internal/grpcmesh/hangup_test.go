package grpcmesh_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/grpcmesh"
)

// deafListener has connections that are not read any more once it is deaf.
type deafListener struct {
	net.Listener
	deaf, over chan struct{}
}

type deafConn struct {
	net.Conn
	l *deafListener
}

func (l *deafListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &deafConn{conn, l}, nil
}

func (c *deafConn) Read(p []byte) (int, error) {
	select {
	case <-c.l.deaf:
		<-c.l.over
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

// A host outside the mesh that does not read what it is sent keeps nobody who leaves:
// gRPC alone would wait for it for 5 s.
func TestCloseDoesNotWaitForAHostOutsideThatDoesNotRead(t *testing.T) {
	t.Parallel()
	// Name resolution needs the real network, which holds a few MiB that nobody reads.
	const much = 16 << 20
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &deafListener{inner, make(chan struct{}), make(chan struct{})}
	outside := grpc.NewServer(grpc.InitialWindowSize(4*much), grpc.InitialConnWindowSize(4*much))
	grpc_testing.RegisterTestServiceServer(outside, &backend{before: hang})
	var serving sync.WaitGroup
	serving.Go(func() { _ = outside.Serve(ln) })
	t.Cleanup(func() {
		close(ln.over)
		outside.Stop()
		serving.Wait()
	})
	f := newFixture(t, func(o *grpcmesh.Options) { o.AllowUnknown = true })
	name := inner.Addr().String()
	f.source.forget(name)
	client := grpc_testing.NewTestServiceClient(f.channelTo("mesh:///" + name))
	stream, err := client.FullDuplexCall(withTimeout(t))
	if err != nil {
		t.Fatal(err)
	}
	close(ln.deaf)
	sent := make(chan error, 1)
	go func() { // ends with the stream
		for {
			if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: make([]byte, much/16)}}); err != nil {
				sent <- err
				return
			}
		}
	}()
	select {
	case err := <-sent:
		t.Fatal(err)
	case <-time.After(time.Second): // the network is full
	}
	begun := time.Now()
	if err := f.adapter.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	<-sent
}

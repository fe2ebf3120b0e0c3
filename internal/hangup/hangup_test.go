package hangup_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inboardmesh/inboard/internal/hangup"
	"github.com/inboardmesh/inboard/internal/memnet"
)

const window = 1 << 20

// slowListener has connections that are not read once frozen is closed.
type slowListener struct {
	net.Listener
	frozen, over chan struct{}
}

type slowConn struct {
	net.Conn
	l *slowListener
}

func (l *slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &slowConn{conn, l}, nil
}

func (c *slowConn) Read(p []byte) (int, error) {
	select {
	case <-c.l.frozen:
		<-c.l.over
	default:
	}
	return c.Conn.Read(p)
}

// dial returns a channel with a stream over which size bytes were sent to a server that
// does not read.
func dial(t *testing.T, size int, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	network := new(memnet.Network)
	inner, err := network.Listen("slow")
	if err != nil {
		t.Fatal(err)
	}
	ln := &slowListener{inner, make(chan struct{}), make(chan struct{})}
	came := make(chan struct{}, 1)
	server := grpc.NewServer(grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			came <- struct{}{}
			<-s.Context().Done()
			return nil
		}))
	go func() { _ = server.Serve(ln) }() // ends with the test
	t.Cleanup(func() { close(ln.over); server.Stop() })
	cc, err := grpc.NewClient("passthrough:///slow", grpc.WithTransportCredentials(creds), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return network.DialContext(ctx, "tcp", "slow")
	}))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, "/a/b")
	if err != nil {
		t.Fatal(err)
	}
	<-came
	close(ln.frozen)
	if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, size))); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return cc
}

func TestAChannelWhosePeerDoesNotReadIsClosedAtOnce(t *testing.T) {
	t.Parallel()
	const goAwayTime = 5 * time.Second // what gRPC waits by itself
	for _, tt := range []struct {
		name            string
		size            int
		alone           bool
		atLeast, atMost time.Duration
	}{
		{name: "the peer reads on", size: 1},
		{name: "a write is stuck", size: window / 2},
		{name: "gRPC alone", size: window / 2, alone: true, atLeast: goAwayTime, atMost: goAwayTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var lines hangup.Lines
				creds := insecure.NewCredentials()
				if !tt.alone {
					creds = lines.Secure(creds)
				}
				cc := dial(t, tt.size, creds)
				begun := time.Now()
				lines.End()
				if err := cc.Close(); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took < tt.atLeast || took > tt.atMost {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// What is written after the end, such as gRPC's GOAWAY, has a moment.
func TestALineThatHasEndedIsNotWrittenToForLong(t *testing.T) {
	t.Parallel()
	for _, endedFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var lines hangup.Lines
			client, server := memnet.Pipe()
			defer server.Close()
			if endedFirst {
				lines.End()
			}
			conn, _, err := lines.Secure(insecure.NewCredentials()).ClientHandshake(t.Context(), "peer", client)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			lines.End()
			begun := time.Now()
			if _, err := conn.Write(make([]byte, window)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the write ended with %v", err)
			}
			if took := time.Since(begun); took > 100*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// bundle are credentials as they are registered with gRPC.
type bundle struct {
	credentials.Bundle
	transport credentials.TransportCredentials
}

func (b bundle) TransportCredentials() credentials.TransportCredentials { return b.transport }

func (b bundle) NewWithMode(string) (credentials.Bundle, error) { return b, nil }

// broken is a handshake that fails.
type broken struct {
	credentials.TransportCredentials
}

func (broken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("no")
}

func TestCredentialsStayWhatTheyAre(t *testing.T) {
	t.Parallel()
	var lines hangup.Lines
	if got := hangup.Of([]grpc.DialOption{grpc.WithUserAgent("a"), hangup.Option{Lines: &lines}}); got != &lines {
		t.Errorf("lines %v", got)
	}
	if got := hangup.Of(nil); got != nil {
		t.Errorf("lines %v of no options", got)
	}
	b, err := lines.Bundle(bundle{transport: insecure.NewCredentials()}).NewWithMode("")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.TransportCredentials().Clone().Info().SecurityProtocol; got != "insecure" {
		t.Errorf("the protocol is %q", got)
	}
	if got := lines.Bundle(bundle{}).TransportCredentials(); got != nil {
		t.Errorf("credentials %v out of none", got)
	}
	client, server := memnet.Pipe()
	defer client.Close()
	defer server.Close()
	if _, _, err := lines.Secure(broken{insecure.NewCredentials()}).ClientHandshake(t.Context(), "peer", client); err == nil {
		t.Error("the handshake went well")
	}
}

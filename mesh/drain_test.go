package mesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
)

// drainee is a process of every kind of server, with peers outside the mesh, who
// look at what comes over the wire.
type drainee struct {
	*mesh.Mesh

	http, grpc, raw string // addresses
	listeners       []net.Listener
	release         chan struct{}
	begun           chan struct{} // a slow request has
	shutdown        func(ctx context.Context)
}

func startDrainee(t *testing.T) *drainee {
	t.Helper()
	d := &drainee{
		Mesh:    worldtest.New(t, "").Join("shop", "payment", map[string]string{"app": "payment"}),
		release: make(chan struct{}), begun: make(chan struct{}, 10),
	}
	for range 3 {
		ln, err := d.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		d.listeners = append(d.listeners, ln)
	}
	d.http, d.grpc, d.raw = d.listeners[0].Addr().String(), d.listeners[1].Addr().String(), d.listeners[2].Addr().String()
	server := d.Server(http.HandlerFunc(d.serve))
	calls := grpc.NewServer(d.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(calls, &pingService{})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(d.listeners[0]) })
	serving.Go(func() { _ = calls.Serve(d.listeners[1]) })
	serving.Go(func() { // an application with a protocol of its own
		for {
			conn, err := d.listeners[2].Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	d.shutdown = func(ctx context.Context) {
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		calls.GracefulStop()
		_ = d.listeners[2].Close() // Drain has closed it already
	}
	t.Cleanup(func() {
		_ = server.Close()
		calls.Stop()
		_ = d.listeners[2].Close()
		_ = d.Close()
		serving.Wait()
	})
	return d
}

func (d *drainee) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/slow":
		d.begun <- struct{}{}
		<-d.release
	case "/upgrade":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		// As most WebSocket libraries have it: the handler's end is not the connection's.
		go func() {
			_, _ = io.Copy(conn, buffered)
			_ = conn.Close()
		}()
		return
	}
	_, _ = io.WriteString(w, "ok")
}

// pingService sends back what comes.
type pingService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (*pingService) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

func (*pingService) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
			return err
		}
	}
}

// peer is a connection whose peer reads every byte.
type peer struct {
	net.Conn
	*bufio.Reader
}

func (p peer) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func dialPeer(t *testing.T, address string) peer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return peer{conn, bufio.NewReader(conn)}
}

// ask sends a request of HTTP/1.1.
func (p peer) ask(t *testing.T, path string) {
	t.Helper()
	if _, err := fmt.Fprintf(p, "GET %s HTTP/1.1\r\nHost: payment\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
}

// answer reads a response of HTTP/1.1.
func (p peer) answer(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(p.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
		t.Fatalf("status %d, body %q, %v", resp.StatusCode, body, err)
	}
	return resp
}

// echoes says something and expects it back.
func (p peer) echoes(t *testing.T) {
	t.Helper()
	if _, err := io.WriteString(p, "hello"); err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 5); true {
		if _, err := io.ReadFull(p, got); err != nil || string(got) != "hello" {
			t.Fatalf("the echo was %q, %v", got, err)
		}
	}
}

// ended expects the end of the connection.
func (p peer) ended(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(p); err != nil || len(rest) > 0 {
		t.Errorf("there were %q, %v", rest, err)
	}
}

// peer2 is a peer that speaks HTTP/2.
type peer2 struct {
	peer
	*http2.Framer

	stream uint32
}

func dialPeer2(t *testing.T, address string) *peer2 {
	t.Helper()
	p := &peer2{peer: dialPeer(t, address), stream: 1}
	if _, err := io.WriteString(p.Conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	p.Framer = http2.NewFramer(p.Conn, p.Reader)
	if err := p.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return p
}

// until reads frames until one is as it should be.
func (p *peer2) until(t *testing.T, what string, is func(http2.Frame) bool) {
	t.Helper()
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			if err := p.WriteSettingsAck(); err != nil {
				t.Fatal(err)
			}
		}
		if is(frame) {
			return
		}
	}
}

// get sends a request on the next stream.
func (p *peer2) get(t *testing.T) {
	t.Helper()
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "payment"}, {":path", "/"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: p.stream, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	p.stream += 2
}

func endsStream(id uint32) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		return f.Header().StreamID == id && f.Header().Flags.Has(http2.FlagDataEndStream)
	}
}

// isGoAway expects a GOAWAY that is no error, and excludes no stream up to last.
func isGoAway(t *testing.T, last uint32) func(http2.Frame) bool {
	t.Helper()
	return func(f http2.Frame) bool {
		g, ok := f.(*http2.GoAwayFrame)
		if ok && (g.ErrCode != http2.ErrCodeNo || g.LastStreamID < last) {
			t.Errorf("GOAWAY %+v", g)
		}
		return ok
	}
}

// A process that drains, as its peers see it over every protocol.
func TestBD1_BD3_BD4_DrainOverTheWire(t *testing.T) {
	t.Parallel()
	d := startDrainee(t)
	if err := d.Ready(); err != nil {
		t.Fatal(err)
	}
	idle, slow, upgraded, raw := dialPeer(t, d.http), dialPeer(t, d.http), dialPeer(t, d.http), dialPeer(t, d.raw)
	idle.ask(t, "/")
	if resp := idle.answer(t); resp.Close {
		t.Error("a response ends its connection before the process drains")
	}
	slow.ask(t, "/slow")
	<-d.begun
	upgraded.ask(t, "/upgrade")
	if resp, err := http.ReadResponse(upgraded.Reader, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	upgraded.echoes(t)
	raw.echoes(t)
	second, silent := dialPeer2(t, d.http), dialPeer2(t, d.grpc)
	second.get(t)
	second.until(t, "the response", endsStream(1))
	silent.until(t, "the settings", func(f http2.Frame) bool { return f.Header().Type == http2.FrameSettings })
	channel, err := grpc.NewClient("passthrough:///"+d.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close()
	stream, err := grpc_testing.NewTestServiceClient(channel).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pingPong := func() {
		t.Helper()
		if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	pingPong()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var report mesh.DrainReport
	ended := make(chan error, 1)
	go func() { // ends with Drain
		var err error
		report, err = d.Drain(ctx, mesh.DrainPolicy{Listen: time.Hour, Finish: -1, Immediate: true})
		ended <- err
	}()
	<-d.Draining()
	if err := d.Ready(); err == nil || err.Error() != "mesh: draining" {
		t.Errorf("ready: %v", err)
	}
	if _, err := d.Listen(t.Context(), "tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "the mesh drains") {
		t.Errorf("listen: %v", err)
	}
	// Over new connections as over old ones, requests are served.
	late := dialPeer(t, d.http)
	late.ask(t, "/")
	late.answer(t)
	silent.until(t, "a GOAWAY without a request", isGoAway(t, math.MaxInt32))
	idle.ask(t, "/")
	if resp := idle.answer(t); !resp.Close {
		t.Error("a response of HTTP/1.1 does not end its connection")
	}
	idle.ended(t)
	second.get(t)
	done, gone := endsStream(3), isGoAway(t, 3)
	both := 0
	second.until(t, "a response and a GOAWAY", func(f http2.Frame) bool {
		if done(f) || gone(f) {
			both++
		}
		return both == 2
	})
	_ = second.Conn.Close()
	_ = silent.Conn.Close()
	late.ask(t, "/")
	late.answer(t) // which may or may not ask it to go
	_ = late.Conn.Close()

	// What has begun is finished, after the listeners are closed.
	for _, ln := range d.listeners {
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{d.http, d.grpc, d.raw} {
		if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address); err == nil {
			t.Error("a connection was accepted")
			_ = conn.Close()
		}
	}
	pingPong()
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the stream: %v", err)
	}
	upgraded.echoes(t)
	raw.echoes(t)
	close(d.release)
	if resp := slow.answer(t); !resp.Close {
		t.Error("a request that had begun before does not end its connection")
	}
	slow.ended(t)
	_ = upgraded.Conn.Close()
	select {
	case err := <-ended:
		t.Fatalf("it has ended while a connection is in use: %v", err)
	default:
	}
	_ = raw.Conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if report.Cut+report.ConnectionsCut+report.Refused != 0 || report.Finished != 6 || report.Late != 4 {
		t.Errorf("%+v", report)
	}
	d.shutdown(ctx)
	if again, err := d.Drain(ctx, mesh.DrainPolicy{}); err != nil || again != report {
		t.Errorf("once more: %+v, %v", again, err)
	}
}

// A user's own server and those that Drain is too late for.
func TestDrainBesideShutdownAndClose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		beside func(ctx context.Context, d *drainee)
	}{
		{"servers that are shut down at the same time", func(ctx context.Context, d *drainee) { d.shutdown(ctx) }},
		{"the mesh is closed at the same time", func(_ context.Context, d *drainee) { _ = d.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			d := startDrainee(t)
			p := dialPeer(t, d.http)
			p.ask(t, "/")
			p.answer(t)
			begun := time.Now()
			ended := make(chan error, 1)
			go func() {
				_, err := d.Drain(ctx, mesh.DrainPolicy{Listen: time.Hour})
				ended <- err
			}()
			<-d.Draining()
			tt.beside(ctx, d)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

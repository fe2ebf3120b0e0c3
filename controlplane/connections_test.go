package controlplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// stranger connects and says nothing. What it is sent is dropped.
type stranger struct {
	net.Conn
	ended chan struct{} // closed when the other side has closed
}

func connect(t testing.TB, network *memnet.Network, address string) *stranger {
	t.Helper()
	conn, err := network.DialContext(context.Background(), "mem", address)
	if err != nil {
		t.Fatal(err)
	}
	return watchEnd(t, conn)
}

func watchEnd(t testing.TB, conn net.Conn) *stranger {
	t.Helper()
	s := &stranger{Conn: conn, ended: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(io.Discard, conn)
		close(s.ended)
	})
	t.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return s
}

func (s *stranger) isEnded() bool {
	synctest.Wait()
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func joined(t *testing.T, network *memnet.Network) *deltaClient {
	t.Helper()
	c := newDelta(t, dial(t, network, "plaintext:1"), node("shop", ""))
	c.subscribe(eds, cluster("payment"))
	c.want(eds, []string{cluster("payment")}, nil)
	return c
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := mustNew(t, Config{
			Files: []istio.File{service("payment", "10.0.0.1")}, MaxConnections: 2, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		network := serveMemory(t, s)
		first, second := joined(t, network), joined(t, network)
		time.Sleep(time.Hour)
		for range 10 {
			if !connect(t, network, "plaintext:1").isEnded() {
				t.Fatal("a third connection is kept")
			}
		}
		first.quiet()
		second.quiet()
		got := s.Status()
		if got.Connections != 2 || got.Limits.Connections != 2 || got.Totals.Connections != 2 || got.Totals.ConnectionsRefused != 10 || got.Totals.ConnectionsIdle != 0 {
			t.Errorf("%d connections of %d, totals %+v", got.Connections, got.Limits.Connections, got.Totals)
		}
		if n := strings.Count(log.String(), "connection refused"); n != 1 {
			t.Errorf("%d lines of refused connections, want one a minute", n)
		}
		if err := second.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * roomAge)
		joined(t, network) // there is room again
		first.quiet()
	})
}

// TestStrangersWhoSayNothingMakeRoom: thousands of them keep no client out, and disturb
// none.
func TestStrangersWhoSayNothingMakeRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}, MaxConnections: 50})
		network := serveMemory(t, s)
		early := joined(t, network)
		for range 20 {
			for range 100 {
				connect(t, network, "plaintext:1")
			}
			time.Sleep(roomAge)
			if got := s.Status().Connections; got > 50 {
				t.Fatalf("%d connections", got)
			}
		}
		late := joined(t, network)
		early.quiet()
		late.quiet()
		if got := s.Status().Totals; got.ConnectionsRefused == 0 || got.ConnectionsIdle == 0 || got.Streams != 2 {
			t.Errorf("totals %+v", got)
		}
		time.Sleep(handshakeTimeout + time.Second)
		if got := s.Status().Connections; got != 2 {
			t.Errorf("%d connections after the time for a handshake", got)
		}
	})
}

func TestAHandshakeHasATimeLimit(t *testing.T) {
	secureBubble(t, func(t *testing.T, s *Server, network *memnet.Network, _ *logBuffer) {
		mute := connect(t, network, "secure:1")
		conn, err := network.DialContext(t.Context(), "mem", "secure:1")
		if err != nil {
			t.Fatal(err)
		}
		secured := tls.Client(conn, &tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: s.ca.Roots(), ServerName: "localhost", NextProtos: []string{"h2"},
		})
		if err := secured.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		idle := watchEnd(t, secured)
		time.Sleep(handshakeTimeout - time.Second)
		if mute.isEnded() || idle.isEnded() {
			t.Error("ended before the time is over")
		}
		time.Sleep(2 * time.Second)
		if !mute.isEnded() || !idle.isEnded() {
			t.Errorf("still open: without a byte %v, with TLS alone %v", !mute.isEnded(), !idle.isEnded())
		}
		if got := s.Status().Connections; got != 0 {
			t.Errorf("%d connections", got)
		}
	})
}

// pinging speaks HTTP/2: it begins a unary call of which nothing but the headers comes,
// answers pings, and goes on when it is asked to go.
func pinging(t *testing.T, conn net.Conn) *stranger {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := io.WriteString(conn, http2.ClientPreface)
	must(err)
	framer := http2.NewFramer(conn, conn)
	must(framer.WriteSettings())
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/grpc.health.v1.Health/Check"}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		must(encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	must(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	s := &stranger{Conn: conn, ended: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(s.ended)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					err = framer.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					err = framer.WritePing(true, frame.Data)
				}
			}
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		wg.Wait()
	})
	return s
}

func TestAConnectionWithoutACallIsEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		network := serveMemory(t, s)
		client := joined(t, network)
		conn, err := network.DialContext(t.Context(), "mem", "plaintext:1")
		if err != nil {
			t.Fatal(err)
		}
		stranger := pinging(t, conn)
		time.Sleep(idleEnd - time.Second)
		if stranger.isEnded() {
			t.Error("ended before the time is over")
		}
		time.Sleep(2 * time.Second)
		if !stranger.isEnded() {
			t.Error("a connection without a call stays")
		}
		time.Sleep(time.Hour)
		client.quiet()
		if got := s.Status(); got.Connections != 1 || got.Totals.ConnectionsIdle != 1 {
			t.Errorf("%d connections, totals %+v", got.Connections, got.Totals)
		}
	})
}

// TestWatchesOfTheHealthAreBounded: nobody has to say who he is for one.
func TestWatchesOfTheHealthAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := serveMemory(t, mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch := func(client grpc_health_v1.HealthClient) error {
			stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			return err
		}
		var client grpc_health_v1.HealthClient
		for i := range maxHealthWatches {
			if i%(maxCalls-1) == 0 { // one is left for a call that is refused
				client = grpc_health_v1.NewHealthClient(dial(t, network, "plaintext:1"))
			}
			if err := watch(client); err != nil {
				t.Fatal(err)
			}
		}
		if err := watch(client); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "watches of the health") {
			t.Errorf("error %v", err)
		}
		joined(t, network)
		cancel()
		time.Sleep(time.Second)
		ctx = t.Context()
		if err := watch(grpc_health_v1.NewHealthClient(dial(t, network, "plaintext:1"))); err != nil {
			t.Errorf("there is no room again: %v", err)
		}
	})
}

func TestTheStatusListenerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{})
		network := new(memnet.Network)
		listener, err := network.Listen("status:1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Serve(ctx, Listeners{Status: listener}); err != nil {
				t.Error(err)
			}
		})
		defer func() {
			cancel()
			wg.Wait()
		}()
		var strangers []*stranger
		for range maxStatusConnections + 50 {
			strangers = append(strangers, connect(t, network, "status:1"))
		}
		if strangers[0].isEnded() || !strangers[maxStatusConnections].isEnded() {
			t.Error("want the first ones open, and those for whom there is no room closed")
		}
		time.Sleep(roomAge)
		client := &http.Client{Transport: &http.Transport{DialContext: network.DialContext}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("http://status:1/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}

func TestConnectionsLeaveFilesForTheRest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most  int
		files uint64
		want  int
		low   bool
	}{
		{25_000, 1 << 20, 25_000, false},
		{25_000, 1024, 1024 - spareFiles, true},
		{25_000, 100, 50, true},
		{25_000, 0, 1, true},
		{10, 1024, 10, false},
		{10, 1 << 63, 10, false},
	} {
		if got, low := newConnections(c.most, slog.New(slog.DiscardHandler)).fit(c.files); got != c.want || low != c.low {
			t.Errorf("%d of %d files: got %d, %v; want %d, %v", c.most, c.files, got, low, c.want, c.low)
		}
	}
}

func TestANegativeBoundOfConnectionsIsAMistake(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{MaxConnections: -1}); err == nil || !strings.Contains(err.Error(), "MaxConnections -1 is negative") {
		t.Errorf("error %v", err)
	}
	if got := mustNew(t, Config{}).Status().Limits; got.Streams != DefaultMaxStreams || got.Connections != 25_000 {
		t.Errorf("limits %+v", got)
	}
	if got := mustNew(t, Config{MaxStreams: 10}).Status().Limits; got.Streams != 10 || got.Connections != 1010 {
		t.Errorf("limits %+v", got)
	}
}

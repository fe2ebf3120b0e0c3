package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/outcome"
)

// A peer that ends each connection before anything is sent over it is one that cannot be
// connected to. It was dialed again without a pause for as long as the call lasted: 2,000
// times in ten seconds.
func TestConnectionsThatEndBeforeTheFirstRequestAreFailuresToConnect(t *testing.T) {
	t.Parallel()
	var settings bytes.Buffer
	if err := http2.NewFramer(&settings, nil).WriteSettings(); err != nil {
		t.Fatal(err)
	}
	const wayThereAndBack = 5 * time.Millisecond
	for _, tt := range []struct {
		name  string
		edit  func(*discovery.Cluster)
		serve func(net.Conn)
	}{
		{"HTTP/1.1, at once", nil, func(net.Conn) {}},
		{"HTTP/2, before its settings", speakHTTP2, func(net.Conn) {}},
		{"HTTP/2, behind its settings", speakHTTP2, func(conn net.Conn) { _, _ = conn.Write(settings.Bytes()) }},
		{"HTTP/2, the peer's half behind its settings", speakHTTP2, func(conn net.Conn) {
			_, _ = conn.Write(settings.Bytes())
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				var dials atomic.Int64
				w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					conn, err := w.network.DialContext(ctx, network, address)
					time.Sleep(wayThereAndBack)
					return conn, err
				}
				w.rawServer(paymentAddress, tt.serve)
				_, e := w.one(tt.edit)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, failure := e.RoundTrip(newRequest(ctx, t, http.MethodPost, nil), discovery.PriorityDefault)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || dials.Load() > 2 || ctx.Err() != nil {
					t.Errorf("failure %+v after %d dials, %v", failure, dials.Load(), ctx.Err())
				}
			})
		})
	}
}

// net/http quotes in its errors what the peer says.
func TestWhatAPeerSaysIsNoMarkOfNetHTTP(t *testing.T) {
	t.Parallel()
	for _, mark := range []string{
		"http2: client conn not usable", "http2: client conn could not be established",
		"http2: Transport received Server's graceful shutdown GOAWAY", "http: ContentLength=1 with Body length 2",
	} {
		said := fmt.Errorf("http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=NO_ERROR, debug=%q", mark)
		if kind, sent := exchangeKind(fmt.Errorf("round trip: %w", said)); kind != outcome.Reset || !sent {
			t.Errorf("%q, said by the peer: %v, sent %t", mark, kind, sent)
		}
		if kind, _ := exchangeKind(fmt.Errorf("round trip: %w", errors.New(mark))); kind == outcome.Reset {
			t.Errorf("%q: %v", mark, kind)
		}
	}
}

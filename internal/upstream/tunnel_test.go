package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// readingAhead is a dialer's connection that reads more than it gives.
type readingAhead struct {
	wrappedConn

	ahead *bufio.Reader
}

func readAhead(inner net.Conn) net.Conn {
	return readingAhead{wrappedConn{Conn: inner, inner: inner}, bufio.NewReaderSize(inner, 64<<10)}
}

func (c readingAhead) Read(p []byte) (int, error) { return c.ahead.Read(p) }

// withoutDeadlines is such a connection which does not know of deadlines.
type withoutDeadlines struct{ net.Conn }

func (withoutDeadlines) SetReadDeadline(time.Time) error { return net.ErrWriteToConnected }

// NetConn is the connection below.
func (c withoutDeadlines) NetConn() net.Conn { return c.Conn.(readingAhead).inner }

// withDeafReads is such a connection whose reads do not keep to a deadline.
type withDeafReads struct{ withoutDeadlines }

func (withDeafReads) SetReadDeadline(time.Time) error { return nil }

// twice answers each request, and behind that says what nobody has asked for. The answer
// fills the buffer of who reads it. It ends with the connection.
func twice(conn net.Conn, behind string) {
	requests := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(requests)
		if err != nil {
			return
		}
		head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Id: %s\r\nContent-Length: 4000\r\nX-Pad: ", req.Header.Get("X-Id"))
		pad := strings.Repeat("p", 4096-len(head)-4-4000)
		_, _ = io.WriteString(conn, head+pad+"\r\n\r\n"+strings.Repeat("b", 4000)+behind) // what is read tells
	}
}

// TestBN2_WhatADialersConnectionHasReadIsNoAnswer to the next request, however that
// connection keeps it: with TLS of its own, or with a buffer.
func TestBN2_WhatADialersConnectionHasReadIsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		around func(context.Context, net.Conn) (net.Conn, error)
		tls    bool // of the dialer, which the server has, too
		reused bool
	}{
		"TLS": {around: func(ctx context.Context, conn net.Conn) (net.Conn, error) {
			secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			return secured, secured.HandshakeContext(ctx)
		}, tls: true, reused: true},
		"TLS over a buffer": {around: func(ctx context.Context, conn net.Conn) (net.Conn, error) {
			secured := tls.Client(readAhead(conn), &tls.Config{InsecureSkipVerify: true})
			return secured, secured.HandshakeContext(ctx)
		}, tls: true, reused: true},
		"a buffer": {around: func(_ context.Context, conn net.Conn) (net.Conn, error) {
			return readAhead(conn), nil
		}, reused: true},
		"a buffer without deadlines": {around: func(_ context.Context, conn net.Conn) (net.Conn, error) {
			return withoutDeadlines{readAhead(conn)}, nil
		}},
	} {
		for _, own := range []bool{false, true} {
			for _, behind := range []string{"", "x", "HTTP/1.1 200 OK\r\nX-Id: another\r\nContent-Length: 6\r\n\r\nsecond"} {
				for _, pause := range []time.Duration{0, 10 * time.Millisecond} {
					t.Run(fmt.Sprintf("%s, TLS of the mesh: %t, %d bytes, after %v", name, own, len(behind), pause), func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) {
							w, ca := newWorld(t), tlstest.NewCA(t)
							certificate := ca.Workload(t, paymentID)
							w.identities["default"] = meshtls.NewStatic(identity(t, ca, customerID, ca))
							w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
								conn, err := w.network.DialContext(ctx, network, address)
								if err != nil {
									return nil, err
								}
								return tt.around(ctx, conn)
							}
							w.rawServer(paymentAddress, func(conn net.Conn) {
								if tt.tls {
									conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, DynamicRecordSizingDisabled: true})
								}
								if own {
									conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{certificate}, DynamicRecordSizingDisabled: true})
								}
								twice(conn, behind)
							})
							edit := func(*discovery.Cluster) {}
							if own {
								edit = mutualTLS
							}
							_, e := w.one(edit)
							const calls = 5
							for i := range calls {
								req := newRequest(t.Context(), t, http.MethodGet, nil)
								id := fmt.Sprint("call ", i)
								req.Header.Set("X-Id", id)
								resp, failure := e.RoundTrip(req, discovery.PriorityDefault)
								if failure != nil {
									t.Fatal(failure.Err)
								}
								if got := resp.Header.Get("X-Id"); got != id {
									t.Errorf("%s has the answer of %q", id, got)
								}
								read(t, resp)
								time.Sleep(pause)
							}
							opened, _ := w.connections()
							if want := tt.reused && behind == ""; want && opened != 1 || !want && opened != calls {
								t.Errorf("%d connections for %d calls", opened, calls)
							}
						})
					})
				}
			}
		}
	}
}

// TestBN2_AConnectionThatIsDeafToItsDeadlineIsNotUsed, for nobody could tell what it
// holds, and the call says so.
func TestBN2_AConnectionThatIsDeafToItsDeadlineIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := w.network.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return withDeafReads{withoutDeadlines{readAhead(conn)}}, nil
		}
		w.rawServer(paymentAddress, func(conn net.Conn) { twice(conn, "") })
		_, e := w.one(nil)
		_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), discovery.PriorityDefault)
		if failure == nil || failure.Sent || !strings.Contains(failure.Err.Error(), "does not keep to its read deadline: have the dialer return one that does") {
			t.Errorf("got %+v", failure)
		}
	})
}

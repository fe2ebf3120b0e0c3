package mesh_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"math"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestBD3_AStreamThatIsOnItsWayIsServed though its peer has been asked to go: the GOAWAY
// that ends the connection comes when the peer has answered, and knows of the first.
func TestBD3_AStreamThatIsOnItsWayIsServed(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	caller := root.Workload(t, customerID)
	for name, socket := range map[string]string{"with mutual TLS": ownMutualTLS, "in plaintext": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, ln := listenRaw(t, newRawXDS(t), socket, "", mesh.WithIdentity("default", meshtls.NewStatic(own)))
			serveUntilEnd(t, m.Server(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if id, _ := mesh.PeerID(r.Context()); r.ProtoMajor != 2 || (r.TLS != nil) != (socket != "") || r.TLS != nil && id.String() != customerID {
					t.Errorf("%s, TLS %v, from %q", r.Proto, r.TLS != nil, id)
				}
			})), ln)
			p := &peer2{peer: dialPeer(t, ln.Addr().String()), stream: 1}
			if socket != "" {
				p.Conn = tls.Client(p.Conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{caller}, NextProtos: []string{"h2"}})
				p.Reader = bufio.NewReader(p.Conn)
			}
			if _, err := io.WriteString(p.Conn, http2.ClientPreface); err != nil {
				t.Fatal(err)
			}
			p.Framer = http2.NewFramer(p.Conn, p.Reader)
			if err := p.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			p.get(t)
			p.until(t, "the first response", endsStreamWithHeaders(1))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ended := make(chan error, 1)
			go func() { // ends with Drain
				_, err := m.Drain(ctx, mesh.DrainPolicy{Listen: time.Hour, Finish: -1, Immediate: true})
				ended <- err
			}()
			p.until(t, "the GOAWAY that excludes no stream", isGoAway(t, math.MaxInt32))
			p.get(t)
			p.until(t, "the response to a stream that was on its way", endsStreamWithHeaders(3))
			p.get(t)
			p.until(t, "the response to the next", endsStreamWithHeaders(5))
			var ping [8]byte
			p.until(t, "the PING", func(f http2.Frame) bool {
				asked, ok := f.(*http2.PingFrame)
				if ok {
					ping = asked.Data
				}
				return ok
			})
			p.get(t) // written before the answer
			if err := p.WritePing(true, ping); err != nil {
				t.Fatal(err)
			}
			served, gone := false, false
			p.until(t, "the last response, and the GOAWAY that ends the connection", func(f http2.Frame) bool {
				if g, ok := f.(*http2.GoAwayFrame); ok {
					gone = true
					if g.LastStreamID != 7 || g.ErrCode != http2.ErrCodeNo {
						t.Errorf("%+v", g)
					}
				}
				served = served || endsStreamWithHeaders(7)(f)
				return served && gone
			})
			if frame, err := p.ReadFrame(); err == nil {
				t.Errorf("the connection has not ended: %v", frame)
			}
			_ = p.Conn.Close()
			if err := ln.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// endsStreamWithHeaders is the response without a body.
func endsStreamWithHeaders(id uint32) func(http2.Frame) bool {
	return func(f http2.Frame) bool {
		h, ok := f.(*http2.HeadersFrame)
		return ok && h.StreamID == id && h.StreamEnded()
	}
}

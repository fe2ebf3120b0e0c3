package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/http1"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

// early is a server that says something behind its handshake, before it is asked.
type early struct {
	certificate tls.Certificate
	version     uint16
	// together sends what it says in one piece with the end of the handshake.
	together bool
	tickets  bool
	says     string
	end      func(*tls.Conn) error
	// piece is how many bytes come at once if that is not all; the rest takes half a minute.
	piece int
}

// serve ends with the connection.
func (s early) serve(conn net.Conn) {
	defer conn.Close()
	g := &gathering{Conn: conn}
	server := tls.Server(g, &tls.Config{
		Certificates: []tls.Certificate{s.certificate}, MaxVersion: s.version, SessionTicketsDisabled: !s.tickets,
		// From here on the server sends what ends the handshake, and what is behind it.
		VerifyConnection: func(tls.ConnectionState) error { g.holds = s.together || s.piece > 0; return nil },
	})
	if server.HandshakeContext(context.Background()) != nil {
		return
	}
	_, _ = io.WriteString(server, s.says) // what is read tells
	if s.end != nil {
		_ = s.end(server)
	}
	if s.piece > 0 {
		_, _ = conn.Write(g.held.Next(s.piece))
		time.Sleep(30 * time.Second)
	}
	_ = g.flush()
	if s.end != nil {
		return
	}
	requests := bufio.NewReader(server)
	for {
		if _, err := http.ReadRequest(requests); err != nil {
			return
		}
		_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
	}
}

// TestBN2_WhatComesBeforeTheFirstRequestOverTLSIsNoAnswer to it, nor is the end of the
// stream, as net/http has it ("Unsolicited response received on idle HTTP channel"). What
// TLS itself says there, such as session tickets, is nobody's answer, however late the
// request comes.
func TestBN2_WhatComesBeforeTheFirstRequestOverTLSIsNoAnswer(t *testing.T) {
	t.Parallel()
	certificate := tlstest.NewCA(t).Workload(t, "spiffe://cluster.local/ns/shop/sa/payment")
	for name, tt := range map[string]struct {
		early
		usable bool
	}{
		"nothing":                          {usable: true},
		"tickets":                          {early{tickets: true}, true},
		"a piece of what ends the tickets": {early{tickets: true, piece: 20}, true},
		"an answer":                        {early: early{says: forged}},
		"an answer behind tickets":         {early: early{tickets: true, says: forged}},
		"a byte":                           {early: early{says: "H"}},
		"the end of TLS":                   {early: early{end: (*tls.Conn).CloseWrite}},
		"the end of TLS behind tickets":    {early: early{tickets: true, end: (*tls.Conn).CloseWrite}},
		"the end of the stream":            {early: early{tickets: true, end: func(*tls.Conn) error { return nil }}},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			if tt.piece > 0 && version == tls.VersionTLS12 {
				continue // there tickets are within the handshake
			}
			for _, together := range []bool{false, true} {
				for _, wait := range []time.Duration{0, 10 * time.Second} {
					t.Run(fmt.Sprintf("%s, %s, together: %t, after %v", name, tls.VersionName(version), together, wait), func(t *testing.T) {
						t.Parallel()
						synctest.Test(t, func(t *testing.T) {
							server := tt.early
							server.certificate, server.version, server.together = certificate, version, together
							raw, end := memnet.Pipe()
							go server.serve(end)
							secured := tls.Client(&recordsConn{Conn: raw}, &tls.Config{InsecureSkipVerify: true})
							if err := secured.HandshakeContext(t.Context()); err != nil {
								t.Fatal(err)
							}
							conn := http1.New(secured, &http1.Options{})
							defer conn.Close()
							synctest.Wait()
							time.Sleep(wait)
							if err := conn.Reserve(); (err == nil) != tt.usable {
								t.Fatalf("reserved: %v, want %t", err, tt.usable)
							}
							if tt.usable {
								if body := answerTo(t, conn, http.MethodPost); body != "answer" {
									t.Errorf("the answer is %q", body)
								}
							}
						})
					})
				}
			}
		}
	}
}

// TestBN2_AServerThatSpeaksFirstIsNoneOfHTTP: what it says is nobody's answer, in the clear
// and over TLS, and the call says why it failed.
func TestBN2_AServerThatSpeaksFirstIsNoneOfHTTP(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit  func(*discovery.Cluster)
		serve func(net.Conn, tls.Certificate)
	}{
		"in the clear": {nil, func(conn net.Conn, _ tls.Certificate) {
			_, _ = io.WriteString(conn, forged)
			_, _ = io.Copy(io.Discard, conn)
		}},
		"over TLS": {mutualTLS, func(conn net.Conn, certificate tls.Certificate) {
			early{certificate: certificate, version: tls.VersionTLS13, tickets: true, says: forged}.serve(conn)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, ca := newWorld(t), tlstest.NewCA(t)
				certificate := ca.Workload(t, paymentID)
				w.identities["default"] = meshtls.NewStatic(identity(t, ca, customerID, ca))
				w.opening = func() { time.Sleep(time.Millisecond) } // so that the server is the first
				w.rawServer(paymentAddress, func(conn net.Conn) { tt.serve(conn, certificate) })
				_, e := w.one(tt.edit)
				_, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodPost, nil), discovery.PriorityDefault)
				if failure == nil || failure.Kind != outcome.ConnectFailure || failure.Sent || !errors.Is(failure.Err, errGoneAtOnce) || !strings.Contains(failure.Err.Error(), "the peer") {
					t.Errorf("got %+v, want a failure to connect", failure)
				}
				w.expectConnections(2, 2)
			})
		})
	}
}

package mesh_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const ownMutualTLS = `"requireClientCertificate": true, "commonTlsContext": {"tlsCertificateProviderInstance": {"instanceName": "default"},
	"validationContext": {"caCertificateProviderInstance": {"instanceName": "default"}}}`

// listenRaw is a listener of a mesh with the given transport socket.
func listenRaw(t *testing.T, x *rawXDS, socket, network string, options ...mesh.Option) (*mesh.Mesh, net.Listener) {
	t.Helper()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x.set(rawListener(t, inner.Addr().String(), socket, network, ""))
	m := x.join(options...)
	ln, err := m.Serve(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	return m, ln
}

// serveUntilEnd serves until the test ends.
func serveUntilEnd(t *testing.T, server *http.Server, ln net.Listener) {
	t.Helper()
	done := make(chan struct{})
	go func() { // until the test ends
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
}

// TestV44_ARequestWithTwoLengthsIsRefused by the server of the mesh, with mutual TLS
// and without, before the application sees it; nothing behind it is served. Requests
// in chunks do not cost the connection there; a server of the application's own, which
// cannot tell them apart, ends it.
func TestV44_ARequestWithTwoLengthsIsRefused(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	caller := root.Workload(t, customerID)
	for _, tt := range []struct {
		name       string
		socket     string
		handlerToo bool // the server is the application's own
	}{
		{"with mutual TLS", ownMutualTLS, false},
		{"in plaintext", "", false},
		{"with mutual TLS, to a server of the application's own", ownMutualTLS, true},
		{"in plaintext, to a server of the application's own", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				id, _ := mesh.PeerID(r.Context())
				_, _ = fmt.Fprintf(w, "%s %s %v %s tls=%v", r.URL.Path, body, err, id, r.TLS != nil)
			})
			m, ln := listenRaw(t, newRawXDS(t), tt.socket, "", mesh.WithIdentity("default", meshtls.NewStatic(own)))
			server := m.Server(app)
			if tt.handlerToo {
				server = &http.Server{Handler: m.Handler(app), ReadHeaderTimeout: time.Minute}
			}
			serveUntilEnd(t, server, ln)
			dial := func() net.Conn {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				if tt.socket != "" {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{caller}, NextProtos: []string{"http/1.1"}})
				}
				t.Cleanup(func() { _ = conn.Close() })
				if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				return conn
			}
			conn := dial()
			replies := bufio.NewReader(conn)
			const chunked = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
			if !tt.handlerToo {
				for range 3 {
					got, closes := exchange(t, conn, replies, chunked)
					want := "200 /a abc <nil> "
					if !strings.HasPrefix(got, want) || closes || tt.socket != "" && !strings.HasSuffix(got, customerID+" tls=true") {
						t.Fatalf("chunks: %q, closes %v", got, closes)
					}
				}
			} else if got, closes := exchange(t, conn, replies, chunked); !strings.HasPrefix(got, "200 /a abc") || !closes {
				t.Fatalf("chunks: %q, closes %v", got, closes)
			}
			conn = dial()
			replies = bufio.NewReader(conn)
			got, closes := exchange(t, conn, replies,
				"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			if !closes || !tt.handlerToo && !strings.HasPrefix(got, "400 ") {
				t.Errorf("two lengths: %q, closes %v", got, closes)
			}
			if rest, _ := io.ReadAll(replies); len(rest) != 0 {
				t.Errorf("two lengths: then %q", rest)
			}
		})
	}
}

// exchange sends a request and returns the status and the body of its answer, and
// whether that ends the connection.
func exchange(t *testing.T, conn net.Conn, replies *bufio.Reader, text string) (answer string, closes bool) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(replies, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return resp.Status[:4] + string(body), resp.Close
}

// TestConnectionsOfAnApplicationObeyTheNetworkPolicy: an application that speaks a
// protocol of its own over a listener of the mesh gets only connections that the
// policies about connections allow; a change of them counts for the next one.
func TestConnectionsOfAnApplicationObeyTheNetworkPolicy(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	policy := func(id string) string {
		return `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC", "statPrefix": "tcp",
			"rules": {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": true}], "principals": [{"authenticated": {"principalName": {"exact": "` + id + `"}}}]}}}}}, `
	}
	x := newRawXDS(t)
	_, ln := listenRaw(t, x, ownMutualTLS, policy(customerID), mesh.WithIdentity("default", meshtls.NewStatic(own)))
	done := make(chan struct{})
	go func() { // until the listener is closed
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	greeting := func(id string) string {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{root.Workload(t, id)}})
		defer secure.Close()
		got, _ := io.ReadAll(secure)
		return string(got)
	}
	const other = "spiffe://cluster.local/ns/shop/sa/other"
	if got := greeting(customerID); got != "hello\n" {
		t.Errorf("who is allowed reads %q", got)
	}
	if got := greeting(other); got != "" {
		t.Errorf("who is not allowed reads %q", got)
	}
	x.set(rawListener(t, ln.Addr().String(), ownMutualTLS, policy(other), ""))
	until(t, "another is allowed", func() bool { return greeting(other) == "hello\n" })
	if got := greeting(customerID); got != "" {
		t.Errorf("who is not allowed any more reads %q", got)
	}
	x.set(rawListener(t, ln.Addr().String(), ownMutualTLS, `{"name": "ext_authz", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz", "statPrefix": "tcp"}}, `, ""))
	until(t, "to ask about connections is refused", func() bool {
		return strings.Contains(strings.Join(x.rejections(), "\n"), "decides about streams of TCP")
	})
	if got := greeting(customerID); got != "" {
		t.Errorf("after a policy was refused, who is not allowed reads %q", got)
	}
}

package mesh

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/internal/httpmesh"
)

// The limits of [Mesh.Server].
const (
	// readHeaderTimeout is how long a request's headers may take to arrive.
	readHeaderTimeout = 10 * time.Second
	// maxHeaderBytes is a little above Envoy's 60 KiB, which the listener's
	// configuration applies. It is more if that allows more when the server starts.
	maxHeaderBytes = 64 << 10
	// serverIdleTimeout is Envoy's idle_timeout.
	serverIdleTimeout = time.Hour
	// maxConcurrentStreams is Envoy's max_concurrent_streams.
	maxConcurrentStreams = 1024
)

// Server returns an HTTP server for a listener of [Mesh.Listen] that serves next
// through [Mesh.Handler], with HTTP/1.1 and HTTP/2, with and without TLS, and
// with the limits that a server on a network needs and net/http does not set:
// 10 s for the headers of a request, 64 KiB of them (or what max_request_headers_kb of
// the first listener allows when the server starts to serve it, if that is more, and the
// caller has not set MaxHeaderBytes; a configuration that allows more than the server
// reads is warned of in the log), 1024 streams at a time on a
// connection of HTTP/2, and an hour without a request. By its BaseContext the
// listener learns that requests come over its connections: one of HTTP/1.1 that has
// Content-Length beside Transfer-Encoding is refused with 400, and nothing behind it is
// read (RFC 9112, section 6.1). Where it does not learn that, behind another listener or
// for a server of the application's own, a connection ends with the answer to each
// request in chunks, because it could be one of those. In the same way it comes that
// [Mesh.Drain] loses no request that is on its way over a connection of HTTP/2. The
// caller may change the server before it serves, and closes it:
//
//	server := m.Server(mux)
//	err := server.Serve(listener)
func (m *Mesh) Server(next http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	var once sync.Once // of several listeners
	server := &http.Server{
		Handler:           m.Handler(next),
		ReadHeaderTimeout: readHeaderTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		IdleTimeout:       serverIdleTimeout,
		Protocols:         protocols,
		// OPTIONS * is for policies to decide, too.
		DisableGeneralOptionsHandler: true,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxConcurrentStreams},
	}
	server.BaseContext = func(ln net.Listener) context.Context {
		m.inbound.Follow(ln)
		once.Do(func() {
			httpmesh.PartGracefully(server)
			if server.MaxHeaderBytes == maxHeaderBytes { // no connection has been accepted that reads it
				server.MaxHeaderBytes = max(maxHeaderBytes, m.inbound.HeaderBytes(ln))
			}
		})
		m.inbound.ReadBy(ln, cmp.Or(server.MaxHeaderBytes, http.DefaultMaxHeaderBytes))
		return context.Background()
	}
	return server
}

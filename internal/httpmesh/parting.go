package httpmesh

import (
	"crypto/tls"
	"net"
	"net/http"

	"github.com/inboardmesh/inboard/internal/inbound"
)

const (
	alpnHTTP2 = "h2"
	// handedOverHTTP2 is the key of [http.Server].TLSNextProto under which an
	// implementation of HTTP/2 takes over a connection that is no [tls.Conn], and of
	// which the preface has been read: net/http hands over those in plaintext so, also to
	// golang.org/x/net/http2.
	handedOverHTTP2 = "unencrypted_http2"
)

// PartGracefully lets the peers of a server's connections of HTTP/2 over TLS be asked to
// go. net/http has set up HTTP/2 for the server, which serves nothing yet. A server whose
// HTTP/2 takes connections of TLS alone stays as it is.
func PartGracefully(server *http.Server) {
	serve, ok := server.TLSNextProto[handedOverHTTP2]
	if _, secure := server.TLSNextProto[alpnHTTP2]; !ok || !secure {
		return
	}
	server.TLSNextProto[alpnHTTP2] = func(server *http.Server, conn *tls.Conn, h http.Handler) {
		c, err := inbound.HTTP2(conn)
		if err != nil {
			return // net/http closes the connection
		}
		serve(server, tls.Server(handedOver{conn: c}, nil), h)
	}
}

// handedOver is how a connection is handed over to an implementation of HTTP/2.
type handedOver struct {
	net.Conn // nil: nobody uses it

	conn net.Conn
}

// UnencryptedNetConn returns the connection.
func (h handedOver) UnencryptedNetConn() net.Conn { return h.conn }

// Package http1 is the client's side of one HTTP/1.1 connection, on the goroutine
// of the caller: it writes with [http.Request.Write] and reads with
// [http.ReadResponse], the standard library's wire code, without the two
// goroutines that [http.Transport] has for each connection. That is most of what
// a call over HTTP/1.1 costs beside the system's own work. It also makes "one
// attempt" true: nothing here sends a request again.
//
// [Conn] has the methods of [http.ClientConn] and behaves as one, tested side by
// side: interim responses and "Expect: 100-continue", answers that come while the
// request is still being written, trailers, HEAD, bodies without a length,
// upgrades, cancellation at any point, transparent gzip. What differs:
//
//   - A request whose body is not in memory is written by a goroutine of its own,
//     for as long as that takes; others by the caller.
//   - A peer that closes an idle connection is noticed when the connection is
//     reserved, or by [Conn.Check], and not at once: nobody reads meanwhile.
//   - When the request cannot be written to its end, an answer that the peer gave
//     before is still read, for a second; net/http may drop it.
//   - A response that is closed early does not cost its connection if the rest of
//     it has been received already.
//   - [http.Response.TLS] is not set.
package http1

package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/outcome"
)

const (
	// FailHeader is the header with which an endpoint says, in the answer to a call
	// or to a check, that it is to be left alone at once.
	FailHeader = "X-Envoy-Immediate-Health-Check-Fail"

	degradedHeader    = "X-Envoy-Degraded"
	checkedHeader     = "X-Envoy-Upstream-Healthchecked-Cluster"
	checkUserAgent    = "Inboard/HC"
	maxCheckedBody    = 64 << 10
	checkedBodyForAll = 1 << 20 // where the configuration sets no limit
)

// checkConn is a connection that checks are made over.
type checkConn interface{ close() }

func (d *dialed) close() { _ = d.cc.Close() }

// probe is one health check of an endpoint.
type probe struct {
	endpoint *Endpoint
	config   *health.Config
	// address is where to ask; hostname is the endpoint's own name for it, or "".
	address, hostname string
	// conn is the connection to use, nil for a new one. Afterwards it is what the
	// next check may use, or nil.
	conn checkConn
}

// found is what a check found out.
type found struct {
	result health.Result
	// excluded is whether the endpoint asked to be left alone.
	excluded bool
	err      error // why it is no success
}

func unreachable(err error) found { return found{result: health.Unreachable, err: err} }

// run makes the check, within the time of ctx.
func (p *probe) run(ctx context.Context) found {
	switch {
	case p.config.HTTP != nil:
		return p.overHTTP(ctx, p.httpProtocol(), p.checkHTTP)
	case p.config.GRPC != nil:
		return p.overHTTP(ctx, wireHTTP2, p.checkGRPC)
	}
	return p.checkTCP(ctx)
}

// alpn is what to offer: what the configuration says, else otherwise.
func (p *probe) alpn(otherwise alpnFunc) alpnFunc {
	if p.config.ALPN == nil {
		return otherwise
	}
	return func(*discovery.UpstreamTLS) []string { return p.config.ALPN }
}

func noALPN(*discovery.UpstreamTLS) []string { return nil }

func (p *probe) httpProtocol() wireProtocol {
	switch p.config.HTTP.Codec {
	case health.HTTP2:
		return wireHTTP2
	case health.ALPN:
		return wireALPN
	case health.HTTP1:
	}
	return wireHTTP1
}

// overHTTP makes a check over the connection of the last one, or over a new one if
// that cannot be used any more: the peer may have closed it just now.
func (p *probe) overHTTP(ctx context.Context, protocol wireProtocol, check func(context.Context, *dialed) (found, bool)) found {
	if d, ok := p.conn.(*dialed); ok {
		p.conn = nil
		if d.current(p.endpoint) && d.cc.Reserve() == nil {
			f, again := check(ctx, d)
			if !again {
				return f
			}
		}
		d.close()
	}
	d, err := p.endpoint.dialAt(ctx, p.address, protocol, p.alpn(protocol.alpn))
	if err != nil {
		return unreachable(err)
	}
	f, _ := check(ctx, d)
	if p.conn == nil {
		d.close()
	}
	return f
}

// checkHTTP sends the request and looks at the answer. again is true if nothing has
// been answered because the connection was not good any more.
func (p *probe) checkHTTP(ctx context.Context, d *dialed) (f found, again bool) {
	h := p.config.HTTP
	req := p.request(ctx, h.Method, h.Path, firstOf(p.hostname, h.Host, p.endpoint.cluster.name), h.Body)
	req.Header.Set("User-Agent", checkUserAgent)
	for _, name := range h.Remove {
		if http.CanonicalHeaderKey(name) == "User-Agent" {
			req.Header["User-Agent"] = nil // or net/http has one of its own
			continue
		}
		req.Header.Del(name)
	}
	for _, header := range h.Set {
		req.Header.Add(header.Name, header.Value)
	}
	resp, err := d.cc.RoundTrip(req)
	if err != nil {
		return unreachable(err), ctx.Err() == nil && isStale(err)
	}
	body, err := readChecked(resp, h)
	if err != nil {
		return unreachable(err), false
	}
	if resp.Close {
		d.close()
	} else {
		p.conn = d
	}
	f = found{result: h.Status(resp.StatusCode), excluded: resp.Header[FailHeader] != nil}
	switch {
	case f.result != health.Success:
		f.err = errors.New("status " + strconv.Itoa(resp.StatusCode))
	case !inOrder(body, h.Receive):
		f.result, f.err = health.Failure, errors.New("the body is not what it must be")
	case h.Service != nil && !h.Service.Matches(resp.Header.Get(checkedHeader)):
		f.result, f.err = health.Failure, fmt.Errorf("it belongs to the service %q", resp.Header.Get(checkedHeader))
	case resp.Header[degradedHeader] != nil:
		f.result = health.Degraded
	}
	return f, false
}

// request makes the request of a check.
func (p *probe) request(ctx context.Context, method, path, host string, body []byte) *http.Request {
	target := &url.URL{Scheme: "http", Host: p.address}
	if at, err := url.ParseRequestURI(path); err == nil {
		target.Path, target.RawPath, target.RawQuery = at.Path, at.RawPath, at.RawQuery
	} else {
		target.Opaque = path
	}
	req := (&http.Request{
		Method: method, URL: target, Host: host, Header: make(http.Header),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if len(body) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return req
}

func firstOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// isStale reports whether a request was not answered because its connection had
// been given up before.
func isStale(err error) bool {
	f := exchangeFailure(err)
	return !f.Sent || f.Stale || f.Kind == outcome.RefusedStream || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

// readChecked reads as much of the body as is looked at, and waits for its end, as
// Envoy does: an answer that does not end within the check's time is none. The rest is
// not kept.
func readChecked(resp *http.Response, h *health.HTTP) ([]byte, error) {
	limit := int64(h.BodyLimit)
	if limit <= 0 || limit > checkedBodyForAll {
		limit = checkedBodyForAll
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return body, errors.Join(err, resp.Body.Close())
}

// inOrder reports whether the parts are in the text, one after the other.
func inOrder(text []byte, parts [][]byte) bool {
	for _, part := range parts {
		i := bytes.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// tcpConn is the connection of a check by TCP.
type tcpConn struct {
	net.Conn
	made *dialed
}

func (c *tcpConn) close() { _ = c.Conn.Close() }

// checkTCP connects, and compares what comes back for what is sent.
func (p *probe) checkTCP(ctx context.Context) found {
	kept, ok := p.conn.(*tcpConn)
	p.conn = nil
	if !ok || !kept.made.current(p.endpoint) {
		if ok {
			kept.close()
		}
		d := new(dialed)
		state := p.endpoint.cluster.state.Load()
		if state.err != nil {
			return unreachable(state.err)
		}
		connecting, cancel := context.WithTimeout(ctx, connectTimeout(state.config))
		defer cancel()
		conn, err := p.endpoint.connect(connecting, d, state, p.address, p.alpn(noALPN))
		if err != nil {
			return unreachable(err)
		}
		kept = &tcpConn{Conn: conn, made: d}
	}
	stop := context.AfterFunc(ctx, func() { _ = kept.SetDeadline(time.Now()) })
	f := p.converse(kept)
	switch {
	case !stop(), f.result != health.Success, len(p.config.TCP.Receive) == 0:
		// Without an answer a connection says nothing the second time.
		kept.close()
	default:
		p.conn = kept
	}
	return f
}

func (p *probe) converse(conn net.Conn) found {
	t := p.config.TCP
	if len(t.Send) > 0 {
		if _, err := conn.Write(t.Send); err != nil {
			return unreachable(err)
		}
	}
	var received []byte
	buffer := make([]byte, 4<<10)
	for len(t.Receive) > 0 && !inOrder(received, t.Receive) {
		n, err := conn.Read(buffer)
		received = append(received, buffer[:n]...)
		if err != nil && !inOrder(received, t.Receive) {
			return unreachable(err)
		}
		if len(received) > maxCheckedBody {
			return unreachable(errors.New("the answer is not what it must be"))
		}
	}
	return found{}
}

func splitAddress(address string) (host string, port uint32) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address, 0
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, uint32(n)
}

func joinAddress(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

package httpmesh

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/cputime"
	"github.com/inboardmesh/inboard/observe"
)

// plainInbound is a configuration for plaintext, with policies that have to look at
// everything.
func plainInbound(rules *discovery.RBACRules) *discovery.Inbound {
	in := strict()
	in.Chains[0].TLS, in.Chains[0].Match.TransportProtocol = nil, "raw_buffer"
	in.Chains[0].Headers = discovery.HeaderLimits{Bytes: 60 << 10, Count: 100}
	if rules != nil {
		in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: rules}}}
	}
	return in
}

// denying are rules that deny a path.
func denying(path string) *discovery.RBACRules {
	return &discovery.RBACRules{Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
		Permissions: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Value: path}}},
		Principals:  []discovery.RBACRule{{Kind: discovery.RBACAny}},
	}}}
}

// seen is an application that notes what comes to it.
type seen struct {
	mu      sync.Mutex
	targets []string // guarded by mu
	bodies  []string // guarded by mu
}

func (s *seen) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets, s.bodies = append(s.targets, r.RequestURI), append(s.bodies, string(body))
}

func (s *seen) take() (targets, bodies []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	targets, bodies = s.targets, s.bodies
	s.targets, s.bodies = nil, nil
	return targets, bodies
}

// converse sends bytes as they are and returns all that is answered.
func converse(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	written := make(chan struct{})
	go func() { // ends with the connection
		defer close(written)
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	answer, _ := io.ReadAll(conn)
	_ = conn.Close()
	<-written
	return string(answer)
}

// TestV16_WhatIsServedIsWhatWasDecidedAbout: a target that has one reading comes to
// the application byte for byte, whichever protocol brought it; one that has two does
// not come at all.
func TestV16_WhatIsServedIsWhatWasDecidedAbout(t *testing.T) {
	t.Parallel()
	var app seen
	address := serveInbound(t, plainInbound(denying("/admin")), &app)
	served := 0
	for _, target := range []string{
		"/", "/a", "/a/", "/a?x=%2F", "/a?x=/../admin", "/%C3%A4", "/a%20b", "/a+b", "/A", "/a:b@c", "/a,b", "/a=b&c", "/~a", "/a!$'()*", "/a?",
		"/a%2Fb", "/a/%2e%2e/b", "/a//b", "/a/./b", "/%61dmin", "/a%5Cb", "/a;b", "/a%00", "/a%3Fb", "/a%23b", "/a%252F",
	} {
		for protocol, send := range map[string]func(*testing.T, string, string) string{"HTTP/1.1": rawHTTP1, "HTTP/2": rawHTTP2} {
			status := send(t, address, target)
			targets, _ := app.take()
			if len(targets) == 0 {
				continue // refused
			}
			served++
			if len(targets) != 1 || targets[0] != target {
				t.Errorf("%s: %q was answered with %q and served as %q", protocol, target, status, targets)
			}
			if parsed, err := url.ParseRequestURI(target); err != nil || parsed.Path == "/admin" || parsed.Path != path.Clean(parsed.Path) && parsed.Path != path.Clean(parsed.Path)+"/" {
				t.Errorf("%s: %q was served: %v", protocol, target, err)
			}
		}
	}
	if served < 30 {
		t.Errorf("only %d requests were served", served)
	}
}

// TestV17_WhatIsInsideAnUpgradeIsNoWayRoundThePolicy: an upgrade is decided about as
// any other request; h2c by upgrade and CONNECT are not spoken, so that nothing inside
// them is ever read as a request.
func TestV17_WhatIsInsideAnUpgradeIsNoWayRoundThePolicy(t *testing.T) {
	t.Parallel()
	var hidden atomic.Int64
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/admin" {
			hidden.Add(1)
		}
		if r.Header.Get("Upgrade") != "echo" {
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString("echo " + line)
		_ = rw.Flush()
	})
	address := serveInbound(t, plainInbound(denying("/admin")), app)
	const inner = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
	preface := http2.ClientPreface
	for _, tt := range []struct{ name, text, want string }{
		{"a denied upgrade", "GET /admin HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", "HTTP/1.1 403 "},
		{"a request inside an upgrade", "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n" + inner, "HTTP/1.1 101 "},
		{"h2c by upgrade", "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + preface, "HTTP/1.1 200 "},
		{"h2c by upgrade, denied", "GET /admin HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + preface, "HTTP/1.1 403 "},
	} {
		got := converse(t, address, tt.text)
		if !strings.HasPrefix(got, tt.want) || tt.want == "HTTP/1.1 101 " && !strings.HasSuffix(got, "echo GET /admin HTTP/1.1\r\n") {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := converse(t, address, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"+inner); strings.HasPrefix(got, "HTTP/1.1 2") {
		t.Errorf("CONNECT: %q", got)
	}
	if hidden.Load() != 0 {
		t.Errorf("%d denied requests were served", hidden.Load())
	}
}

// maxHeaderBytes is that of the mesh's server.
const maxHeaderBytes = 64 << 10

// TestV43_HeadersOfAnyShapeAreBounded: a MiB of headers in one line, in a hundred and
// in ten thousand, as cookies and as Host, over raw HTTP/1.1 and raw HTTP/2. None comes
// to the application, and none costs more than it sends, counting what net/http
// allocates and drops again on its way to its limit of 64 KiB, where it stops.
func TestV43_HeadersOfAnyShapeAreBounded(t *testing.T) { //nolint:paralleltest // it reads what the whole process allocates
	var app seen
	address := serveInbound(t, plainInbound(nil), &app)
	const size = 1 << 20
	lines := func(n int, name string) [][2]string {
		all := make([][2]string, 0, n)
		for i := range n {
			field := name
			if strings.HasSuffix(name, "-") {
				field = fmt.Sprintf("%s%d", name, i)
			}
			all = append(all, [2]string{field, strings.Repeat("a", size/n)})
		}
		return all
	}
	room := make([]byte, 1<<20)
	cost := func(wire []byte) (answer string, allocated uint64) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		answer = sendRaw(t, address, wire, room)
		runtime.ReadMemStats(&after)
		return answer, after.TotalAlloc - before.TotalAlloc
	}
	for protocol, encode := range map[string]func([][2]string) []byte{"HTTP/1.1": headersHTTP1, "HTTP/2": headersHTTP2} {
		plain := encode([][2]string{{"x-a", "b"}})
		cost(plain) // everything that is done once
		_, usual := cost(plain)
		if targets, _ := app.take(); len(targets) != 2 {
			t.Fatalf("%s: %d plain requests are served, want 2", protocol, len(targets))
		}
		for _, tt := range []struct {
			name   string
			fields [][2]string
		}{
			{"one line", lines(1, "x-a")},
			{"a hundred lines", lines(100, "x-")},
			{"ten thousand lines", lines(10_000, "x-")},
			{"ten thousand lines of one name", lines(10_000, "x-a")},
			{"cookies", lines(10_000, "cookie")},
			{"many that are empty", slices.Repeat([][2]string{{"a", ""}}, 50_000)},
			{"a host", [][2]string{{"host", strings.Repeat("a", size)}}},
		} {
			answer, allocated := cost(encode(tt.fields))
			if targets, _ := app.take(); len(targets) > 0 {
				t.Errorf("%s, %s: served", tt.name, protocol)
			}
			if protocol == "HTTP/1.1" && answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 431 ") {
				t.Errorf("%s, %s: %.40q", tt.name, protocol, answer)
			}
			if allocated > usual+size {
				t.Errorf("%s, %s: %d KiB were allocated, %d for a plain request", tt.name, protocol, allocated>>10, usual>>10)
			}
		}
	}
}

// sendRaw sends bytes as they are and returns what is answered, as far as there is
// room: until the end, or the headers of an answer of HTTP/2.
func sendRaw(t *testing.T, address string, wire, room []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	written := make(chan struct{})
	go func() { // ends with the connection
		defer close(written)
		_, _ = conn.Write(wire)
	}()
	n := 0
	for err == nil && n < len(room) && !hasHTTP2Headers(room[:n]) {
		var more int
		more, err = conn.Read(room[n:])
		n += more
	}
	_ = conn.Close()
	<-written
	return string(room[:min(n, 4096)])
}

// hasHTTP2Headers reports whether there is a HEADERS frame among those of a server.
func hasHTTP2Headers(frames []byte) bool {
	const head = 9
	for len(frames) >= head && frames[0] == 0 { // no answer of HTTP/1.1 begins so
		if http2.FrameType(frames[3]) == http2.FrameHeaders {
			return true
		}
		size := head + int(frames[1])<<8 + int(frames[2])
		frames = frames[min(size, len(frames)):]
	}
	return false
}

func headersHTTP1(fields [][2]string) []byte {
	var text bytes.Buffer
	text.WriteString("GET / HTTP/1.1\r\nConnection: close\r\n")
	hosted := false
	for _, f := range fields {
		hosted = hosted || f[0] == "host"
		text.WriteString(f[0] + ": " + f[1] + "\r\n")
	}
	if !hosted {
		text.WriteString("host: a\r\n")
	}
	text.WriteString("\r\n")
	return text.Bytes()
}

func headersHTTP2(fields [][2]string) []byte {
	all := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}}
	for _, f := range fields {
		if f[0] == "host" {
			all[2][1] = f[1]
		} else {
			all = append(all, f)
		}
	}
	return headersHTTP2Of(all)
}

// headersHTTP2Of is a connection of HTTP/2 with one request of these fields, in their
// order.
func headersHTTP2Of(fields [][2]string) []byte {
	var block, wire bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	framer := http2.NewFramer(&wire, nil)
	wire.WriteString(http2.ClientPreface)
	_ = framer.WriteSettings()
	const piece = 16 << 10
	rest := block.Bytes()
	first := rest[:min(piece, len(rest))]
	rest = rest[len(first):]
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: len(rest) == 0})
	for len(rest) > 0 {
		next := rest[:min(piece, len(rest))]
		rest = rest[len(next):]
		_ = framer.WriteContinuation(1, len(rest) == 0, next)
	}
	return wire.Bytes()
}

// TestV44_ARequestIsReadInOneWay: what two readers could take for one request or for
// two is refused, and nothing that follows it over the connection is served.
func TestV44_ARequestIsReadInOneWay(t *testing.T) {
	t.Parallel()
	var app seen
	address := serveInbound(t, plainInbound(nil), &app)
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, tt := range []struct {
		name, text string
		// body is what the application may have read, if it is asked at all.
		body string
		// want is the beginning of the first answer.
		want string
	}{
		{"a bare LF in a chunk's size", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n" + smuggled, "", ""},
		{"a bare LF in an extension", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\n\r\nhello\r\n0\r\n\r\n" + smuggled, "", ""},
		{"both lengths", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"both lengths, the other way round", "POST /a HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\ncontent-length:\t4\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"both lengths, behind another request", "GET /b HTTP/1.1\r\nHost: a\r\n\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 200 "},
		{"both lengths, behind a body in chunks", "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-A: b\r\n\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 200 "},
		{"both lengths, behind an upgrade that nobody wants", "GET /b HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nPOST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 200 "},
		{"both lengths, with a length that is folded", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length:\r\n 4\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"a coding that is folded", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"chunked in HTTP/1.0", "POST /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"xchunked with a length", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"xchunked", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\nabc" + smuggled, "", "HTTP/1.1 501 "},
		{"chunked twice", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 501 "},
		{"chunked in a list", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + smuggled, "", "HTTP/1.1 501 "},
		{"chunked with a vertical tab", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\nContent-Length: 3\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"a folded header", "POST /a HTTP/1.1\r\nHost: a\r\nX-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc" + smuggled, "abc", "HTTP/1.1 200 "},
		{"a space before the colon", "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"two lengths", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"a list of lengths", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"a signed length", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc" + smuggled, "", "HTTP/1.1 400 "},
		{"two hosts", "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"a NUL in a header", "GET /a HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
		{"a CR alone", "GET /a HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n" + smuggled, "", "HTTP/1.1 400 "},
	} {
		got := converse(t, address, tt.text)
		targets, bodies := app.take()
		if tt.want != "" && !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: answered %q, want %q", tt.name, got, tt.want)
		}
		for i, target := range targets {
			// The folded one is whole with its three bytes: what follows is a request
			// of the same client, for every reader.
			if target == "/a" && strings.HasPrefix(tt.name, "both") || target == "/smuggled" && tt.name != "a folded header" ||
				target == "/a" && bodies[i] != tt.body {
				t.Errorf("%s: served %q with %q", tt.name, targets, bodies)
			}
		}
	}
}

// TestG23_V48_NoSmallRequestIsDear: requests of 10 KiB at most that are made to be
// expensive cost less than a MiB and less than a hundred plain ones each.
func TestG23_V48_NoSmallRequestIsDear(t *testing.T) { //nolint:paralleltest // it measures the whole process
	rules := &discovery.RBACRules{Action: discovery.RBACAllow, Policies: []discovery.RBACPolicy{{
		Permissions: []discovery.RBACRule{
			{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Kind: discovery.MatchContains, Value: "aab"}},
			{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: "x-a", Kind: discovery.HeaderString, String: discovery.StringMatch{Kind: discovery.MatchContains, Value: "aab"}}},
			{Kind: discovery.RBACAny},
		},
		Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
	}}}
	handler, plain := newFilteredHandler(t, &observe.Hooks{}, application{}, []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: rules}}})
	const limit = 9 << 10
	request := func(edit func(*http.Request)) *http.Request {
		r := plain.Clone(t.Context())
		edit(r)
		return r
	}
	target := func(p string) func(*http.Request) {
		return func(r *http.Request) {
			parsed, err := url.ParseRequestURI(p)
			if err != nil {
				t.Fatal(err)
			}
			r.URL, r.RequestURI = parsed, p
		}
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	cost := func(r *http.Request, n int) (bytes uint64, cpu time.Duration) {
		var before, after runtime.MemStats
		w := &sink{header: make(http.Header)}
		runtime.GC()
		runtime.ReadMemStats(&before)
		start, ok := cputime.Used()
		for range n {
			clear(w.header)
			handler.ServeHTTP(w, r)
		}
		end, _ := cputime.Used()
		runtime.ReadMemStats(&after)
		if !ok {
			t.Skip("this system does not tell the processor's time")
		}
		return (after.TotalAlloc - before.TotalAlloc) / uint64(n), (end - start) / time.Duration(n)
	}
	cost(plain, 2000) // everything that is done once
	_, plainCPU := cost(plain, 20_000)
	for name, r := range map[string]*http.Request{
		"a long path":       request(target("/" + strings.Repeat("a", limit))),
		"slashes":           request(target(strings.Repeat("/", limit))),
		"dots":              request(target(strings.Repeat("/..", limit/3))),
		"escapes":           request(target("/" + strings.Repeat("%61", limit/3))),
		"parameters":        request(target(strings.Repeat("/a;b", limit/4))),
		"a query":           request(target("/?" + strings.Repeat("a=b&", limit/4))),
		"a header":          request(header("X-A", strings.Repeat("a", limit))),
		"a forwarded chain": request(header("X-Forwarded-For", strings.Repeat("10.0.0.1, ", limit/10)+"10.0.0.1")),
		"a certificate":     request(header("X-Forwarded-Client-Cert", strings.Repeat(`By="a;",`, limit/8))),
		"cookies":           request(header("Cookie", strings.Repeat("a=b; ", limit/5))),
		"baggage":           request(header("Baggage", strings.Repeat("a=b,", limit/4))),
		"connection":        request(header("Connection", strings.Repeat("x-a,", limit/4))),
		"values": request(func(r *http.Request) {
			for range limit / 6 {
				r.Header.Add("X-A", "aa")
			}
		}),
		"a token": request(header("Authorization", "Bearer "+strings.Repeat(".", limit))),
	} {
		bytes, cpu := cost(r, 50)
		if bytes >= 1<<20 {
			t.Errorf("%s: %d KiB", name, bytes>>10)
		}
		if cpu >= 100*plainCPU {
			t.Errorf("%s: %v of the processor's time, a plain request %v", name, cpu, plainCPU)
		}
	}
}

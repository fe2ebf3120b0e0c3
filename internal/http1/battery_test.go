package http1_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	ok2     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n"
)

func text(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

// slow is a body that comes in pieces, with a pause before each.
func slow(pause time.Duration, pieces ...string) func() io.Reader {
	return func() io.Reader {
		return &slowBody{pause: pause, pieces: slices.Clone(pieces), closed: make(chan struct{})}
	}
}

type slowBody struct {
	pause  time.Duration
	pieces []string
	closed chan struct{}
}

func (b *slowBody) Read(p []byte) (int, error) {
	if len(b.pieces) == 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(b.pause):
	case <-b.closed:
		return 0, io.ErrClosedPipe
	}
	n := copy(p, b.pieces[0])
	if b.pieces[0] = b.pieces[0][n:]; b.pieces[0] == "" {
		b.pieces = b.pieces[1:]
	}
	return n, nil
}

func (b *slowBody) Close() error {
	select {
	case <-b.closed:
	default:
		close(b.closed)
	}
	return nil
}

// failing is a body that breaks after some bytes.
func failing(after string) func() io.Reader {
	return func() io.Reader { return io.MultiReader(strings.NewReader(after), errReader{}) }
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBody }

// stuck is a body that never comes.
func stuck() io.Reader {
	r, _ := io.Pipe()
	return r
}

func get(script ...step) scenario { return scenario{script: script, calls: []call{{}}} }

// twice makes a second request on what the first leaves behind.
func twice(script ...step) scenario { return scenario{script: script, calls: []call{{}, {}}} }

func zipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

func named(name string, sc scenario) scenario {
	sc.name = name
	return sc
}

// framings are answers of every form, to a GET, a HEAD and a POST.
func framings() (list []scenario) {
	for name, answer := range map[string]string{
		"with a length":                         ok2,
		"empty":                                 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"chunked with a trailer":                chunked,
		"chunked and empty":                     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked and closing":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"until the connection ends":             "HTTP/1.1 200 OK\r\n\r\nall of this",
		"without a body (204)":                  "HTTP/1.1 204 No Content\r\n\r\n",
		"not modified, with a length":           "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
		"closing":                               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
		"of HTTP/1.0":                           "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"of HTTP/1.0, keeping alive":            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
		"with two equal lengths":                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"with two lengths":                      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
		"with a length and chunks":              "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"with another coding":                   "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
		"with a length below zero":              "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
		"with a length that is no number":       "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
		"with line feeds only":                  "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
		"with a continued header":               "HTTP/1.1 200 OK\r\nX-Long: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
		"with a space before a colon":           "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
		"without a reason":                      "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
		"with a status of two digits":           "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
		"of another protocol":                   "SSH-2.0-OpenSSH_9.2\r\n",
		"of HTTP/2":                             "\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"with a bad chunk":                      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
		"with a chunk that is too short":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\r\n0\r\n\r\n",
		"with a NUL in a header":                "HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\nok",
		"with a bad name of a header":           "HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\nok",
		"not found":                             "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone",
		"a redirect":                            "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
		"switching protocols without a word":    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"with a trailer that was not announced": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n",
	} {
		for _, c := range []call{
			{}, {method: http.MethodHead}, {method: http.MethodPost, body: text("a body"), length: 6}, {closes: true},
		} {
			how := c.method
			if c.closes {
				how = "closing GET"
			}
			script := []step{head, body(int(c.length)), say(answer)}
			list = append(list, scenario{name: fmt.Sprintf("an answer %s to a %s", name, how), script: append(script, hangUp), calls: []call{c}})
			if c.method != http.MethodPost && !c.closes {
				list = append(list, scenario{
					name: fmt.Sprintf("an answer %s to a %s, and another", name, how), script: append(script, head, say(ok2)), calls: []call{c, {timeout: time.Minute}},
				})
			}
		}
	}
	return list
}

// cuts are answers that end after every number of bytes, by an end of the stream
// or of the connection.
func cuts() (list []scenario) {
	for name, answer := range map[string]string{
		"an answer with a length": ok2, "an answer in chunks": chunked,
		"an interim answer": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok2,
	} {
		for n := range len(answer) {
			list = append(list,
				named(fmt.Sprintf("%s is cut after %d bytes", name, n), get(head, say(answer[:n]), hangUp)),
				named(fmt.Sprintf("%s stops after %d bytes", name, n), scenario{
					script: []step{head, say(answer[:n]), deaf}, calls: []call{{timeout: time.Second}},
				}),
			)
			if answer == chunked {
				list = append(list, named(fmt.Sprintf("%s, of which the caller reads %d bytes", name, n), scenario{
					script: []step{head, say(answer), head, say(ok2)}, calls: []call{{read: n + 1}},
				}))
			}
		}
	}
	return list
}

// resets break the connection after every number of bytes, of the answer and of the
// request.
func resets() (list []scenario) {
	for name, answer := range map[string]string{"an answer with a length": ok2, "an answer in chunks": chunked} {
		for n := range len(answer) + 1 {
			list = append(list, named(fmt.Sprintf("%s is reset after %d bytes", name, n), scenario{
				script: []step{head, say(answer[:n]), reset}, calls: []call{{}, {}},
			}))
		}
	}
	post := call{method: http.MethodPost, header: http.Header{"User-Agent": {"x"}}, body: text("hello"), length: 5}
	const request = 112 // from nothing to the whole of it
	// Whoever is closed before a request comes may see that before it is sent, or not.
	for n := 1; n < request; n++ {
		list = append(list,
			named(fmt.Sprintf("a request is cut after %d bytes", n), scenario{script: []step{body(n), hangUp}, calls: []call{post}}),
			named(fmt.Sprintf("a request is reset after %d bytes", n), scenario{script: []step{body(n), reset}, calls: []call{post}}),
		)
	}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello"
	upgrade := call{header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}}
	for n := range len(switching) + 1 {
		list = append(list,
			named(fmt.Sprintf("an upgrade is cut after %d bytes", n), scenario{script: []step{head, say(switching[:n]), hangUp}, calls: []call{upgrade}}),
			named(fmt.Sprintf("an upgrade is reset after %d bytes", n), scenario{script: []step{head, say(switching[:n]), reset}, calls: []call{upgrade}}),
		)
	}
	return list
}

// interims are answers before the answer.
func interims() []scenario {
	const hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	slow := call{method: http.MethodPost, body: slow(time.Second, "hel", "lo"), length: 5}
	return []scenario{
		named("a hundred interim answers", twice(head, say(strings.Repeat(hint, 100)+ok2), head, say(ok2))),
		named("interim answers without an end", get(head, say(strings.Repeat(hint, 20)), deaf)),
		named("an interim answer of an unknown status", twice(head, say("HTTP/1.1 199 What\r\n\r\n"+ok2), head, say(ok2))),
		named("an interim answer with a length", twice(head, say("HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n"+ok2), head, say(ok2))),
		named("an interim answer with a bad header", get(head, say("HTTP/1.1 103 Early Hints\r\nX A: b\r\n\r\n"+ok2))),
		named("an interim answer that closes", twice(head, say("HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n"+ok2), head, say(ok2))),
		named("an interim answer to HEAD", scenario{script: []step{head, say(hint + "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), head, say(ok2)}, calls: []call{{method: http.MethodHead}, {}}}),
		named("an interim answer in the midst of a request", scenario{script: []step{head, body(3), say(hint), body(2), say(ok2), head, say(ok2)}, calls: []call{slow, {}}}),
		named("an interim answer, and then none", get(head, say(hint), hangUp)),
		named("an interim answer, and then a reset", get(head, say(hint), reset)),
		named("an interim answer, and the caller gives up", scenario{script: []step{head, say(hint), deaf}, calls: []call{{cancel: time.Second}}}),
		named("an answer in the midst of a request that ends later", scenario{script: []step{head, body(3), say(ok2), body(2), head, say(ok2)}, calls: []call{slow, {}}}),
		named("an answer in the midst of a request, and a reset", scenario{script: []step{head, body(3), say(ok2), pause(time.Minute), reset}, calls: []call{slow}}),
	}
}

// cancels give up at every point.
func cancels() (list []scenario) {
	const tick = time.Millisecond
	upload := slow(2*tick, "one", "two", "three")
	for ms := range 40 {
		at := time.Duration(ms) * tick
		list = append(list,
			named(fmt.Sprintf("the caller gives up after %d ms of an answer", ms), scenario{
				script: []step{head, bytewise(ok2)}, calls: []call{{cancel: at + tick/3, after: tick / 2}},
			}),
			named(fmt.Sprintf("time is up after %d ms of an answer", ms), scenario{
				script: []step{head, bytewise(ok2)}, calls: []call{{timeout: at + tick/2}},
			}),
		)
		if ms < 12 {
			list = append(list, named(fmt.Sprintf("the caller gives up after %d ms of a request", ms), scenario{
				script: []step{head, deaf}, calls: []call{{method: http.MethodPost, body: upload, length: 11, cancel: at + tick/2}},
			}))
		}
	}
	return list
}

// uploads are requests with bodies.
func uploads() []scenario {
	large := strings.Repeat("0123456789abcdef", 8<<10) // 128 KiB: more than is buffered under way
	expects := http.Header{"Expect": {"100-continue"}}
	post := func(c call, script ...step) scenario {
		c.method = http.MethodPost
		return scenario{script: script, calls: []call{c, {timeout: time.Minute}}}
	}
	waits := &http.Transport{ExpectContinueTimeout: time.Second}
	return []scenario{
		named("a body that is sent at once", post(call{body: text("hello"), length: 5}, head, body(5), say(ok2), head, say(ok2))),
		named("a large body", post(call{body: text(large), length: int64(len(large))}, head, body(len(large)), say(ok2), head, say(ok2))),
		named("a body in chunks", post(call{body: text("hello"), length: -1}, head, until("0\r\n\r\n"), say(ok2), head, say(ok2))),
		named("a body without a length", post(call{body: text("hello")}, head, until("0\r\n\r\n"), say(ok2), head, say(ok2))),
		named("a body that comes slowly goes out as it comes", post(call{body: slow(time.Second, "one", "two"), length: 6}, head, until("one"), say("HTTP/1.1 103 Early Hints\r\n\r\n"), until("two"), say(ok2), head, say(ok2))),
		named("chunks that come slowly go out as they come", post(call{body: slow(time.Second, "one", "two")}, head, until("one"), say("HTTP/1.1 103 Early Hints\r\n\r\n"), until("0\r\n\r\n"), say(ok2), head, say(ok2))),
		named("an empty body in chunks", post(call{body: text(""), length: -1}, head, until("0\r\n\r\n"), say(ok2), head, say(ok2))),
		named("a trailer", post(call{body: text("hello"), trailer: http.Header{"X-Sum": {"5"}}}, head, until("X-Sum: 5\r\n\r\n"), say(ok2), head, say(ok2))),
		named("a GET with a body", scenario{script: []step{head, body(5), say(ok2), head, say(ok2)}, calls: []call{{body: text("hello"), length: 5}, {}}}),
		named("a GET with a body without a length that is empty", scenario{script: []step{head, say(ok2), head, say(ok2)}, calls: []call{{body: text("")}, {}}}),
		named("a GET with a body without a length", scenario{script: []step{head, until("0\r\n\r\n"), say(ok2)}, calls: []call{{body: text("hello")}}}),
		named("a body that is too short", post(call{body: slow(0, "hello"), length: 6}, head, body(6), say(ok2))),
		named("a body that is too long", post(call{body: slow(0, "hello"), length: 4}, head, body(4), pause(time.Second), say(ok2))),
		named("a body that breaks", post(call{body: failing("hel"), length: 5}, head, body(5), say(ok2))),
		named("a body in chunks that breaks", post(call{body: failing("hel")}, head, until("0\r\n\r\n"), say(ok2))),
		named("a body that breaks at once", post(call{body: failing(""), length: 5}, head, body(5), say(ok2))),
		named("a body that never comes", post(call{body: stuck, length: 5, timeout: time.Second}, head, deaf)),
		named("an answer before the body", post(call{body: stuck, length: 5}, head, say(ok2), deaf)),
		named("an answer before the body, which then comes", post(call{body: slow(10*time.Millisecond, "hello"), length: 5, after: time.Second}, head, say(ok2), body(5), head, say(ok2))),
		named("an empty answer before the body, which then comes", post(call{body: slow(10*time.Millisecond, "hello"), length: 5}, head, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), body(5), head, say(ok2))),
		named("a closing answer before the body", post(call{body: stuck, length: 5}, head, say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), hangUp)),
		named("an answer in the midst of a large body", post(call{body: text(large), length: int64(len(large))}, head, body(100), say(ok2), deaf)),
		named("expect: the peer wants the body", post(call{header: expects, body: text("hello"), length: 5}, head, say("HTTP/1.1 100 Continue\r\n\r\n"), body(5), say(ok2), head, say(ok2))),
		with(waits, named("expect: the peer wants the body, after a while", post(call{header: expects, body: text("hello"), length: 5}, head, pause(time.Second/2), say("HTTP/1.1 100 Continue\r\n\r\n"), body(5), say(ok2), head, say(ok2)))),
		with(waits, named("expect: the peer is silent", post(call{header: expects, body: text("hello"), length: 5}, head, body(5), say(ok2), head, say(ok2)))),
		with(waits, named("expect: the peer refuses and closes", post(call{header: expects, body: text("hello"), length: 5}, head, say("HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), hangUp))),
		with(waits, named("expect: the peer refuses at length, and closes", post(call{header: expects, body: text("hello"), length: 5}, head, say("HTTP/1.1 417 No\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabc"), pause(time.Second/2), say("def"), hangUp))),
		with(waits, named("expect: the peer refuses chunks at length, and closes", post(call{header: expects, body: text("hello"), length: -1}, head, say("HTTP/1.1 417 No\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), pause(time.Second/2), say("0\r\n\r\n"), hangUp))),
		with(waits, named("expect: a body that breaks", post(call{header: expects, body: failing("hel"), length: 5}, head, say("HTTP/1.1 100 Continue\r\n\r\n"), body(5), say(ok2)))),
		with(waits, named("expect: chunks that break", post(call{header: expects, body: failing("hel"), length: -1}, head, say("HTTP/1.1 100 Continue\r\n\r\n"), until("0\r\n\r\n"), say(ok2)))),
		with(waits, named("expect: the peer answers and goes on", post(call{header: expects, body: text("hello"), length: 5}, head, say("HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n"), body(5), head, say(ok2)))),
		with(waits, named("expect: the peer says something else first", post(call{header: expects, body: text("hello"), length: 5}, head, say("HTTP/1.1 103 Early Hints\r\n\r\n"), pause(2*time.Second), body(5), say(ok2)))),
		with(waits, named("expect: the peer ends", post(call{header: expects, body: text("hello"), length: 5}, head, hangUp))),
		with(waits, named("expect: the caller gives up", post(call{header: expects, body: text("hello"), length: 5, cancel: time.Millisecond}, head, deaf))),
		named("a continue that nobody asked for", twice(head, say("HTTP/1.1 100 Continue\r\n\r\n"+ok2), head, say(ok2))),
	}
}

func with(settings *http.Transport, sc scenario) scenario {
	sc.settings = settings
	return sc
}

// reuses are second requests.
func reuses() []scenario {
	return []scenario{
		named("two requests", twice(head, say(ok2), head, say(chunked))),
		named("the peer closes after its answer", twice(head, say(ok2), hangUp)),
		named("the peer closes later", scenario{script: []step{head, say(ok2), pause(time.Minute), hangUp}, calls: []call{{}, {}}}),
		named("the peer ends its side after its answer", twice(head, say(ok2), halfClose)),
		named("bytes after an answer", twice(head, say(ok2+"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"), head, say(ok2))),
		named("bytes after an empty answer", twice(head, say("HTTP/1.1 204 No Content\r\n\r\nx"), head, say(ok2))),
		named("a timeout message on an idle connection", twice(head, say(ok2), say("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"), hangUp)),
		named("the caller asks to close", scenario{script: []step{head, say(ok2)}, calls: []call{{closes: true}, {}}}),
		named("the caller closes by header", scenario{script: []step{head, say(ok2)}, calls: []call{{header: http.Header{"Connection": {"close"}}}, {}}}),
		with(&http.Transport{DisableKeepAlives: true}, named("keep-alive is off", twice(head, say(ok2), head, say(ok2)))),
		named("no answer to the second", twice(head, say(ok2), head, hangUp)),
	}
}

// specials are what fits nowhere else.
func specials() []scenario {
	upgrade := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"echo"}}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	gz := zipped("hello")
	encoded := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(gz), gz)
	long := "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 9000) + "\r\nContent-Length: 2\r\n\r\nok"
	return []scenario{
		named("an upgrade", scenario{script: []step{head, say(switching), until("ping"), say("pong"), hangUp}, calls: []call{{header: upgrade}}}),
		named("an upgrade, and bytes behind it", scenario{script: []step{head, say(switching + "hello "), until("ping"), say("pong"), hangUp}, calls: []call{{header: upgrade}}}),
		named("an upgrade that is refused", scenario{script: []step{head, say(ok2), head, say(ok2)}, calls: []call{{header: upgrade}, {}}}),
		named("an upgrade after an interim answer", scenario{script: []step{head, say("HTTP/1.1 103 Early Hints\r\n\r\n" + switching), until("ping"), say("pong"), hangUp}, calls: []call{{header: upgrade}}}),
		named("several interim answers", twice(head, say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+ok2), head, say(ok2))),
		named("byte by byte", twice(head, bytewise(chunked), head, bytewise(ok2))),
		named("a compressed answer", twice(head, say(encoded), head, say(ok2))),
		named("a compressed answer that is damaged", get(head, say(strings.Replace(encoded, gz, gz[:len(gz)-1]+"x", 1)))),
		named("an answer that says it is compressed, and is not", get(head, say("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"))),
		named("a compressed answer to a caller who asked for it", scenario{script: []step{head, say(encoded)}, calls: []call{{header: http.Header{"Accept-Encoding": {"gzip"}}}}}),
		named("a range is not compressed", scenario{script: []step{head, say(ok2)}, calls: []call{{header: http.Header{"Range": {"bytes=0-1"}}}}}),
		with(&http.Transport{DisableCompression: true}, named("compression is off", twice(head, say(ok2), head, say(encoded)))),
		with(&http.Transport{MaxResponseHeaderBytes: 1000}, named("headers that are too large", get(head, say(long)))),
		with(&http.Transport{MaxResponseHeaderBytes: 1000}, named("endless headers", get(head, say("HTTP/1.1 200 OK\r\n"), say(strings.Repeat("X-A: b\r\n", 10000))))),
		named("headers above the buffer's size", twice(head, say(long), head, say(ok2))),
		with(&http.Transport{ResponseHeaderTimeout: time.Second}, named("headers that are late", get(head, pause(2*time.Second), say(ok2)))),
		with(&http.Transport{ResponseHeaderTimeout: time.Second}, named("a body that takes longer than the headers may", get(head, say(ok2[:len(ok2)-1]), pause(2*time.Second), say("k")))),
		with(&http.Transport{ResponseHeaderTimeout: time.Second}, named("headers that are late, behind a slow request", scenario{
			script: []step{head, body(3), pause(3 * time.Second), say(ok2)},
			calls:  []call{{method: http.MethodPost, body: slow(2*time.Second, "one"), length: 3}},
		})),
		with(&http.Transport{ResponseHeaderTimeout: time.Second}, named("headers in time, behind a slow request", scenario{
			script: []step{head, body(3), say(ok2)},
			calls:  []call{{method: http.MethodPost, body: slow(2*time.Second, "one"), length: 3}},
		})),
		named("a bad method", scenario{calls: []call{{method: "BAD METHOD"}}}),
		named("a bad header", scenario{calls: []call{{header: http.Header{"X-A": {"a\r\nb"}}}}}),
		named("a bad name of a header", scenario{calls: []call{{header: http.Header{"X A": {"b"}}}}}),
		named("a user agent of its own", scenario{script: []step{head, say(ok2)}, calls: []call{{header: http.Header{"User-Agent": {"customer"}}}}}),
		named("no user agent", scenario{script: []step{head, say(ok2)}, calls: []call{{header: http.Header{"User-Agent": {""}}}}}),
		named("headers that are not canonical", scenario{script: []step{head, say(ok2)}, calls: []call{{header: http.Header{"x-lower": {"a", "b"}}}}}),
		named("the response is closed unread", scenario{script: []step{head, say(chunked)}, calls: []call{{read: closeAtOnce}}}),
		named("no answer at all", get(head, hangUp)),
	}
}

// differences are where http1 does otherwise than net/http, on purpose.
func differences() []scenario {
	return []scenario{
		{
			name: "the rest of a response that is closed early has come already", script: []step{head, say(ok2), head, say(ok2)},
			calls:   []call{{read: closeAtOnce}, {}},
			differs: "the connection is kept",
			want: func(t *testing.T, got []result) {
				t.Helper()
				if !got[0].Reusable || got[1].Body != "ok" {
					t.Errorf("got %+v", got)
				}
			},
		},
		{
			name: "a body in memory that is too short", script: []step{head, body(6), say(ok2)},
			calls:   []call{{method: http.MethodPost, body: text("hello"), length: 6}},
			differs: "nothing is sent",
			want: func(t *testing.T, got []result) {
				t.Helper()
				if got[0].Err != "the request's length" {
					t.Errorf("got %+v", got)
				}
			},
		},
		{
			name: "the caller has given up before the request", script: []step{head, say(ok2)},
			calls:   []call{{cancel: -1}, {}},
			differs: "nothing was sent, so the connection is kept",
			want: func(t *testing.T, got []result) {
				t.Helper()
				if got[0].Err != "canceled" || !got[0].Reusable || got[1].Body != "ok" {
					t.Errorf("got %+v", got)
				}
			},
		},
		{
			name:    "a bad trailer",
			calls:   []call{{method: http.MethodPost, body: text("x"), trailer: http.Header{"X A": {"b"}}}},
			differs: "the body is closed",
			want: func(t *testing.T, got []result) {
				t.Helper()
				if got[0].Err != "broken" || !got[0].BodyClosed || !got[0].Reusable {
					t.Errorf("got %+v", got)
				}
			},
		},
	}
}

func battery() []scenario {
	var all []scenario
	for _, list := range [][]scenario{framings(), cuts(), resets(), interims(), cancels(), uploads(), reuses(), specials(), differences()} {
		all = append(all, list...)
	}
	return all
}

// net/http drops the answer if it notices first that it cannot write.
func TestAnAnswerInTheMidstOfARequestIsNotLost(t *testing.T) {
	t.Parallel()
	sc := scenario{
		script: []step{head, body(10), say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), hangUp},
		calls:  []call{{method: http.MethodPost, body: text(strings.Repeat("x", 1<<20)), length: 1 << 20}},
	}
	if got, _ := lead(t, roads[1], &sc); got[0].Status != http.StatusRequestEntityTooLarge || got[0].Body != "no" {
		t.Errorf("got %+v", got)
	}
}

// net/http waits for the body, for ever.
func TestAPeerThatEndsIsNoticedWhileTheBodyDoesNotCome(t *testing.T) {
	t.Parallel()
	sc := scenario{script: []step{head, hangUp}, calls: []call{{method: http.MethodPost, body: stuck, length: 5}}}
	if got, _ := lead(t, roads[1], &sc); got[0].Err != "broken" {
		t.Errorf("got %+v", got)
	}
}

// The same requests to the same servers must end alike on both roads.
func TestTheBatteryEndsAsWithNetHTTP(t *testing.T) {
	t.Parallel()
	all := battery()
	const least = 150
	if len(all) < least {
		t.Fatalf("only %d scenarios", len(all))
	}
	for i := range all {
		t.Run(all[i].name, func(t *testing.T) {
			t.Parallel()
			all[i].compare(t)
		})
	}
	t.Logf("%d scenarios", len(all))
}

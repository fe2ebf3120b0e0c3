package httpmesh

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/observe"
)

// pathCorpus are ways to write a path that is denied, as they are on the wire.
// %s is what is denied, without its slash.
var pathCorpus = []string{
	"/%s", "/%s/", "/%s/x", "/%s?x", "/%s?", "/%s#x", "/%s%%23x", "/%s%%3fx", "/%s;a=b", "/%s;", "/;/%s", "/..;/%s", "/pub/..;/%s",
	"//%s", "///%s", "/./%s", "/%s/.", "/%s/./", "/x/../%s", "/pub/../%s", "/pub/x/../../%s", "/pub//../%s", "/../%s",
	"/%%2e/%s", "/pub/%%2e%%2e/%s", "/pub/%%2E%%2E/%s", "/pub/..%%2f%s", "/pub%%2f..%%2f%s", "/%%2f%s", "/%s%%2f", "/%s%%2fx", "/%s%%2Fx",
	"/%s%%5cx", `/%s\x`, `\%s`, `/pub\..\%s`, "/pub/..%%5c%s", "/pub/%%252e%%252e/%s", "/%%252f%s", "/%s%%00", "/%s%%00x", "/%s%%0a", "/%s%%0d%%0a",
	"/%s%%20/..", "/%%c0%%ae%%c0%%ae/%s", "/%%c0%%af%s", "/pub/%%ef%%bc%%8e%%ef%%bc%%8e/%s", "http://other/%s", "http://other//%s", "%s", "*", "", "/%s%%", "/%s%%zz", "/%s%%2", "/%s\x00",
	"/pub/.%%2e/%s", "/pub/%%2e./%s", "/%s/..%%2fx", "/%s%%09", "/%s%%7f",
}

// spellings writes some of the letters of a path as escapes.
func spellings(path string) []string {
	first := fmt.Sprintf("/%%%02x%s", path[0], path[1:])
	var all strings.Builder
	all.WriteString("/")
	for i := range len(path) {
		if path[i] == '/' {
			all.WriteString("/")
		} else {
			fmt.Fprintf(&all, "%%%02X", path[i])
		}
	}
	return []string{first, all.String(), "/pub/../" + first[1:], "/" + first}
}

// corpusApp is one kind of server. It counts how often it gives away what is
// denied.
type corpusApp struct {
	name string
	// secret is the path that is denied, without its slash.
	secret string
	make   func(secret *atomic.Int64) http.Handler
}

func applications() []corpusApp {
	reveal := func(n *atomic.Int64) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) { n.Add(1) } }
	return []corpusApp{
		{"a ServeMux", "admin", func(n *atomic.Int64) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/admin", reveal(n))
			mux.Handle("/admin/", reveal(n))
			mux.Handle("/", http.NotFoundHandler())
			return mux
		}},
		{"one that compares the path, cleans and decodes for itself", "admin", func(n *atomic.Int64) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				for _, path := range []string{r.URL.Path, r.URL.EscapedPath(), "/" + strings.TrimLeft(r.URL.Path, "/")} {
					if path == "/admin" || strings.HasPrefix(path, "/admin/") {
						n.Add(1)
						return
					}
				}
			})
		}},
		{"a file server behind a prefix", "admin", func(n *atomic.Int64) http.Handler {
			files := http.FileServerFS(fstest.MapFS{"admin": {Data: []byte("secret")}, "pub/x": {Data: []byte("x")}})
			return http.StripPrefix("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				files.ServeHTTP(&revealed{ResponseWriter: w, n: n}, r)
			}))
		}},
		{"a gRPC server", strings.TrimPrefix(grpc_testing.TestService_UnaryCall_FullMethodName, "/"), func(n *atomic.Int64) http.Handler {
			s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				if method, _ := grpc.MethodFromServerStream(stream); strings.Trim(method, "/") == strings.TrimPrefix(grpc_testing.TestService_UnaryCall_FullMethodName, "/") {
					n.Add(1)
				}
				return nil
			}))
			return s
		}},
	}
}

// revealed counts the times that a secret is written.
type revealed struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *revealed) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("secret")) {
		w.n.Add(1)
	}
	return w.ResponseWriter.Write(p)
}

// guardedServer serves an application behind policies over HTTP/1.1 and HTTP/2.
func guardedServer(t *testing.T, rules *discovery.RBACRules, next http.Handler) string {
	t.Helper()
	in := strict()
	in.Chains[0].TLS, in.Chains[0].Match.TransportProtocol = nil, "raw_buffer"
	in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "rbac", Config: &discovery.RBAC{Rules: rules}}}
	return serveInbound(t, in, next)
}

// serveInbound serves an application under a configuration, over HTTP/1.1 and
// HTTP/2 without TLS.
func serveInbound(t *testing.T, in *discovery.Inbound, next http.Handler) string {
	t.Helper()
	listeners := inbound.New(inbound.Options{Source: served{in}, Hooks: &observe.Hooks{}})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := listeners.Listen(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: &Handler{Listeners: listeners, Hooks: &observe.Hooks{}, Next: next}, Protocols: new(http.Protocols),
		ReadHeaderTimeout: time.Minute, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(ln net.Listener) context.Context {
			listeners.Follow(ln)
			return context.Background()
		},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
		_ = listeners.Close()
	})
	return inner.Addr().String()
}

// rawHTTP1 sends a target as it is, and returns the status line.
func rawHTTP1(t *testing.T, address, target string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST "+target+" HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	status, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(status)
}

// rawHTTP2 sends a :path as it is, and waits for an answer or the end.
func rawHTTP2(t *testing.T, address, target string) string {
	t.Helper()
	return rawHTTP2Method(t, address, http.MethodPost, target, "application/grpc")
}

func rawHTTP2Method(t *testing.T, address, method, target, contentType string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "a"}, {":path", target}, {"content-type", contentType}, {"te", "trailers"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

// TestG20_V01_V02_V03_V04_BA12_BH4_PathCorpus: every way to write a denied path, over
// raw HTTP/1.1 and raw HTTP/2, against four kinds of applications. With a DENY of
// the path, by its text or by an expression, with a DENY of all but what is beside it,
// and with an ALLOW of that, no secret gets out; nothing that Envoy leaves off has to be
// switched on for it.
func TestG20_V01_V02_V03_V04_BA12_BH4_PathCorpus(t *testing.T) {
	t.Parallel()
	pathRule := func(kind discovery.StringMatchKind, value string) discovery.RBACRule {
		return discovery.RBACRule{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Kind: kind, Value: value}}
	}
	for _, app := range applications() {
		for name, rules := range map[string]*discovery.RBACRules{
			"DENY": {Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
				Permissions: []discovery.RBACRule{pathRule(discovery.MatchExact, "/"+app.secret), pathRule(discovery.MatchPrefix, "/"+app.secret+"/")},
				Principals:  []discovery.RBACRule{{Kind: discovery.RBACAny}},
			}}},
			"ALLOW": {Action: discovery.RBACAllow, Policies: []discovery.RBACPolicy{{
				Permissions: []discovery.RBACRule{pathRule(discovery.MatchPrefix, "/pub/")}, Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
			}}},
			"DENY of all but": {Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
				Permissions: []discovery.RBACRule{{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{pathRule(discovery.MatchPrefix, "/pub/")}}},
				Principals:  []discovery.RBACRule{{Kind: discovery.RBACAny}},
			}}},
			"DENY by an expression": {Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
				Permissions: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &discovery.StringMatch{
					Kind: discovery.MatchRegex, Regex: &discovery.Regex{Program: regexp.MustCompile(`\A(?:/` + app.secret + `(/.*)?)\z`)},
				}}},
				Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
			}}},
		} {
			t.Run(app.name+", "+name, func(t *testing.T) {
				t.Parallel()
				var secret atomic.Int64
				address := guardedServer(t, rules, app.make(&secret))
				targets := spellings(app.secret)
				for _, form := range pathCorpus {
					if strings.Contains(form, "%s") {
						form = fmt.Sprintf(form, app.secret)
					}
					targets = append(targets, form)
				}
				for _, target := range targets {
					for protocol, send := range map[string]func(*testing.T, string, string) string{"HTTP/1.1": rawHTTP1, "HTTP/2": rawHTTP2} {
						status := send(t, address, target)
						if secret.Swap(0) != 0 {
							t.Errorf("%s: %q got through: %s", protocol, target, status)
						}
					}
				}
				if len(targets) < 40 {
					t.Errorf("only %d targets", len(targets))
				}
				if status := rawHTTP2(t, address, "/pub/x"); status == "403" || status == "400" {
					t.Errorf("what is allowed got %s", status)
				}
			})
		}
	}
}

// TestV01_V06_ARequestLineOfHTTP2HasTheSyntaxOfHTTP1: net/http leaves to its handlers
// what it refuses over HTTP/1.1, or puts into one reading.
func TestV01_V06_ARequestLineOfHTTP2HasTheSyntaxOfHTTP1(t *testing.T) {
	t.Parallel()
	var hosts atomic.Int64
	app := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "" {
			hosts.Add(1)
		}
	})
	nobody := &discovery.RBACRules{Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
		Permissions: []discovery.RBACRule{{Kind: discovery.RBACPath, Text: &discovery.StringMatch{Value: "/admin"}}},
		Principals:  []discovery.RBACRule{{Kind: discovery.RBACAny}},
	}}}
	guarded, open := guardedServer(t, nobody, app), guardedServer(t, nil, app)
	for _, tt := range []struct {
		name, method, target, want string
	}{
		{"a path", "GET", "/pub", "200"},
		{"a method of one's own", "PURGE", "/pub", "200"},
		{"a host in the path", "GET", "http://other/pub", "400"},
		{"the same host in the path", "GET", "http://a/pub", "400"},
		{"a scheme without a host", "GET", "http:///pub", "400"},
		{"a method that is no token", "G@T", "/pub", "400"},
		{"a method with a space", "GET /admin", "/pub", "400"},
	} {
		if got := rawHTTP2Method(t, guarded, tt.method, tt.target, "text/plain"); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if hosts.Load() != 0 {
		t.Error("a request with a host of its own in the path got through")
	}
	if rawHTTP2(t, open, "http://other/pub"); hosts.Load() == 0 {
		t.Error("without policies net/http lets such a path through no more: is the check needed?")
	}
}

// TestThePathCorpusFindsTheSecretWithoutPolicies: the applications do give it
// away, in more than one way.
func TestThePathCorpusFindsTheSecretWithoutPolicies(t *testing.T) {
	t.Parallel()
	for _, app := range applications() {
		var secret atomic.Int64
		address := guardedServer(t, nil, app.make(&secret))
		for _, target := range append(spellings(app.secret), "/"+app.secret) {
			rawHTTP2(t, address, target)
		}
		if secret.Load() == 0 {
			t.Errorf("%s has no secret", app.name)
		}
	}
}

package mesh_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// What a header is to be: fresh is an ID that the mesh has made.
const (
	fresh  = "(fresh)"
	absent = ""
)

// arrived are the headers that came to an application, by their names in lower case.
func arrived(t *testing.T, came chan map[string][]string) map[string]string {
	t.Helper()
	select {
	case headers := <-came:
		lower := make(map[string]string, len(headers))
		for name, values := range headers {
			lower[strings.ToLower(name)] = strings.Join(values, " | ")
		}
		return lower
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

// onlyFor lets requests of one client pass.
func onlyFor(client string) string {
	return rbacOf(`"rules": ` + secretPolicy("ALLOW", `{"any": true}`, `{"remoteIp": {"addressPrefix": "`+client+`", "prefixLen": 32}}`))
}

// TestBH1_BH2_V15_WhoTheClientIs as it comes over xDS: for a policy, and for the
// application, of HTTP/1.1, HTTP/2 and gRPC. The peer is at 127.0.0.1, in plaintext or a
// member.
func TestBH1_BH2_V15_WhoTheClientIs(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	caller := root.Workload(t, customerID)
	const (
		forwardedFor, proto, id, internal, external = "x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-envoy-internal", "x-envoy-external-address"

		cidrs = `"originalIpDetectionExtensions": [{"name": "xff", "typedConfig": {
			"@type": "type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig",
			"xffTrustedCidrs": {"cidrs": [{"addressPrefix": "127.0.0.0", "prefixLen": 8}, {"addressPrefix": "3.3.3.3", "prefixLen": 32}]}}}]`
		inside = `"useRemoteAddress": true, "internalAddressConfig": {"cidrRanges": [{"addressPrefix": "127.0.0.0", "prefixLen": 8}]}`
	)
	list := [2]string{forwardedFor, "1.1.1.1, 2.2.2.2, 3.3.3.3"}
	for _, tt := range []struct {
		name   string
		fields string
		member bool
		sent   [][2]string
		client string
		want   map[string]string // of some headers
	}{
		{
			name: "BH1: nothing is said, a stranger forwards", sent: [][2]string{list}, client: "127.0.0.1",
			want: map[string]string{forwardedFor: list[1]},
		},
		{
			name: "BH1: nothing is said, a member forwards", member: true, sent: [][2]string{list}, client: "127.0.0.1",
			want: map[string]string{forwardedFor: list[1]},
		},
		{
			name: "BH1: not the peer, a stranger forwards", fields: `"useRemoteAddress": false`, sent: [][2]string{list}, client: "127.0.0.1",
			want: map[string]string{forwardedFor: list[1], proto: "http"},
		},
		{
			name: "BH1: not the peer, a member forwards", fields: `"useRemoteAddress": false`, member: true, sent: [][2]string{list}, client: "3.3.3.3",
			want: map[string]string{forwardedFor: list[1], proto: "https"},
		},
		{
			name: "BH1: one hop that appends nothing", fields: `"useRemoteAddress": false, "xffNumTrustedHops": 1`, sent: [][2]string{list}, client: "2.2.2.2",
			want: map[string]string{forwardedFor: list[1]},
		},
		{
			name: "BH1: the peer", fields: `"useRemoteAddress": true`, sent: [][2]string{list, {proto, "https"}, {internal, "true"}, {external, "10.0.0.1"}},
			client: "127.0.0.1", want: map[string]string{forwardedFor: list[1] + ",127.0.0.1", proto: "http", internal: absent, external: "127.0.0.1"},
		},
		{
			name: "BH1: one hop before the peer", fields: `"useRemoteAddress": true, "xffNumTrustedHops": 1`, sent: [][2]string{list, {proto, "https"}},
			client: "3.3.3.3", want: map[string]string{forwardedFor: list[1] + ",127.0.0.1", proto: "https", external: "3.3.3.3"},
		},
		{
			name: "BH1: hops in several fields", fields: `"useRemoteAddress": true, "xffNumTrustedHops": 2`,
			sent: [][2]string{{forwardedFor, "1.1.1.1, 2.2.2.2"}, {forwardedFor, "3.3.3.3"}}, client: "2.2.2.2",
			want: map[string]string{forwardedFor: "1.1.1.1, 2.2.2.2,3.3.3.3,127.0.0.1", external: "2.2.2.2"},
		},
		{
			name: "BH1: more hops than there are", fields: `"useRemoteAddress": true, "xffNumTrustedHops": 4`, sent: [][2]string{list}, client: "127.0.0.1",
			want: map[string]string{external: "127.0.0.1"},
		},
		{
			name: "BH1: what is no address ends the list", fields: `"useRemoteAddress": true, "xffNumTrustedHops": 2`,
			sent: [][2]string{{forwardedFor, "1.1.1.1, unknown, 3.3.3.3"}}, client: "127.0.0.1",
		},
		{name: "BH1: behind trusted proxies", fields: cidrs, sent: [][2]string{list}, client: "2.2.2.2", want: map[string]string{forwardedFor: list[1]}},
		{
			name: "BH2: the peer is not appended", fields: `"useRemoteAddress": true, "skipXffAppend": true`, sent: [][2]string{list}, client: "127.0.0.1",
			want: map[string]string{forwardedFor: list[1], external: "127.0.0.1"},
		},
		{
			name: "BH2: the peer is inside", fields: inside, client: "127.0.0.1",
			want: map[string]string{forwardedFor: "127.0.0.1", internal: "true", external: absent},
		},
		{
			name: "BH2: it forwards for somebody who says so", fields: inside, sent: [][2]string{{forwardedFor, "127.0.0.9"}, {internal, "true"}}, client: "127.0.0.1",
			want: map[string]string{forwardedFor: "127.0.0.9,127.0.0.1", internal: absent, external: "127.0.0.1"},
		},
		{
			name: "BH2: a member at the edge", fields: `"useRemoteAddress": true`, member: true,
			sent: [][2]string{{internal, "true"}, {"x-envoy-original-path", "/admin"}}, client: "127.0.0.1",
			want: map[string]string{internal: absent, "x-envoy-original-path": absent, external: "127.0.0.1", proto: "https"},
		},
		{
			name: "BH2: an ID from outside", fields: `"useRemoteAddress": true, "generateRequestId": true`, sent: [][2]string{{id, "chosen"}}, client: "127.0.0.1",
			want: map[string]string{id: fresh},
		},
		{
			name: "BH2: an ID from outside that is to be kept", fields: `"useRemoteAddress": true, "generateRequestId": true, "preserveExternalRequestId": true`,
			sent: [][2]string{{id, "chosen"}}, client: "127.0.0.1", want: map[string]string{id: "chosen"},
		},
		{
			name: "BH2: an ID of a member", fields: `"generateRequestId": true`, member: true, sent: [][2]string{{id, "chosen"}}, client: "127.0.0.1",
			want: map[string]string{id: "chosen"},
		},
		{name: "BH2: no ID", fields: `"generateRequestId": true`, member: true, client: "127.0.0.1", want: map[string]string{id: fresh}},
		{name: "BH2: no ID is asked for", client: "127.0.0.1", want: map[string]string{id: absent, forwardedFor: absent, proto: absent, external: absent}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := forgedTo{came: make(chan map[string][]string, 1)}
			socket, cert := "", (*tls.Certificate)(nil)
			if tt.member {
				socket, cert = ownMutualTLS, &caller
			}
			s := serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
				return withManager(t, rawListener(t, address, socket, "", onlyFor(tt.client)), tt.fields)
			}, app, app, mesh.WithIdentity("default", meshtls.NewStatic(own)))
			for _, protocol := range authorizationProtocols {
				if code, err := s.send(t, protocol, cert, tt.sent); err != nil || code != http.StatusOK {
					t.Errorf("%s: the client is not %s: status %d, %v", protocol, tt.client, code, err)
					continue
				}
				got := arrived(t, app.came)
				for name, want := range tt.want {
					value := got[name]
					if name == forwardedFor { // fields of one name are a list
						value = strings.ReplaceAll(value, " | ", ",")
					}
					switch {
					case want == fresh && len(value) == len("00000000-0000-4000-8000-000000000000") && value != "chosen":
					case value != want:
						t.Errorf("%s: %s is %q, want %q", protocol, name, value, want)
					}
				}
			}
		})
	}
}

// TestV30_BS7_AMemberCannotWriteOtherFieldsOfItsCertificate, whose subject and names it
// chose, and what it says of it by itself does not count.
func TestV30_BS7_AMemberCannotWriteOtherFieldsOfItsCertificate(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	own, err := meshtls.NewIdentity(root.Workload(t, paymentID), certificatesOf(root))
	if err != nil {
		t.Fatal(err)
	}
	caller := root.Issue(t, tlstest.Leaf{
		URIs: []string{customerID}, DNSNames: []string{"a.example"},
		Edit: func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "x\";URI=spiffe://cluster.local/ns/shop/sa/admin,By=\\\r\nx-role: admin"}
		},
	})
	app := forgedTo{came: make(chan map[string][]string, 1)}
	s := serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
		return withManager(t, rawListener(t, address, ownMutualTLS, "", ""),
			`"forwardClientCertDetails": "SANITIZE_SET", "setCurrentClientCertDetails": {"subject": true, "uri": true, "dns": true}`)
	}, app, app, mesh.WithIdentity("default", meshtls.NewStatic(own)))
	for _, protocol := range authorizationProtocols {
		if code, err := s.send(t, protocol, &caller, forgeries[:2]); err != nil || code != http.StatusOK {
			t.Errorf("%s: status %d, %v", protocol, code, err)
			continue
		}
		got := arrived(t, app.came)
		value, ok := strings.CutPrefix(got["x-forwarded-client-cert"], "By="+paymentID+";Hash=")
		_, rest, _ := strings.Cut(value, ";")
		const want = `Subject="CN=x\\\"\\;URI=spiffe://cluster.local/ns/shop/sa/admin\\,By=\\\\%0D%0Ax-role: admin";URI=` + customerID + `;DNS=a.example`
		if !ok || rest != want || got["x-role"] != "" {
			t.Errorf("%s: the application reads %q, want after the hash\n%s\ngot %s", protocol, got["x-forwarded-client-cert"], want, rest)
		}
	}
}

// TestV15_ACallerRemovesNoHeaderOnTheWayOn: an application that is a proxy removes those
// that the header Connection names, and what the mesh has written is not among them.
func TestV15_ACallerRemovesNoHeaderOnTheWayOn(t *testing.T) {
	t.Parallel()
	came := make(chan map[string][]string, 1)
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { came <- r.Header }))
	t.Cleanup(behind.Close)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = "http", behind.Listener.Addr().String()
		r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	}}
	s := serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
		return withManager(t, rawListener(t, address, "", "", ""), `"useRemoteAddress": true, "generateRequestId": true`)
	}, proxy, forgedTo{})
	names := []string{"X-Request-Id", "x-envoy-external-address", "X-FORWARDED-FOR", "authorization"}
	for _, sent := range [][][2]string{
		{{"Connection", strings.Join(names, ", ")}},
		{{"Connection", "close, " + strings.Join(names, ",")}},
		{{"Connection", names[0]}, {"Connection", names[1] + "\t, " + names[2]}, {"Connection", ",," + names[3]}},
	} {
		if code, err := s.send(t, "HTTP/1.1", nil, append(sent, [2]string{"Authorization", "Bearer x"})); err != nil || code != http.StatusOK {
			t.Fatalf("%q: status %d, %v", sent, code, err)
		}
		got := arrived(t, came)
		for _, name := range names[:2] {
			if got[strings.ToLower(name)] == "" {
				t.Errorf("%q: %s was removed: %v", sent, name, got)
			}
		}
		if got["authorization"] != "Bearer x" {
			t.Errorf("%q: the authorization was removed: %v", sent, got)
		}
	}
}

// TestBH3_LimitsOfHeadersAsTheyCome over xDS: the defaults, others, and those that would
// be none.
func TestBH3_LimitsOfHeadersAsTheyCome(t *testing.T) {
	t.Parallel()
	many := func(n int) (headers [][2]string) {
		for i := range n {
			headers = append(headers, [2]string{fmt.Sprintf("x-%d", i), "a"})
		}
		return headers
	}
	large := func(n int) [][2]string { return [][2]string{{"x-a", strings.Repeat("a", n)}} }
	for _, tt := range []struct {
		name, fields string
		sent         [][2]string
		want         bool
	}{
		{"fewer than a hundred", "", many(80), true},
		{"more than a hundred", "", many(101), false},
		{"less than 60 KiB", "", large(59 << 10), true},
		{"more than 60 KiB", "", large(60 << 10), false},
		{"more are allowed", `"commonHttpProtocolOptions": {"maxHeadersCount": 300}`, many(250), true},
		{"fewer are allowed", `"commonHttpProtocolOptions": {"maxHeadersCount": 20}`, many(21), false},
		{"only small ones are allowed", `"maxRequestHeadersKb": 2`, large(2 << 10), false},
		{"small ones", `"maxRequestHeadersKb": 2`, large(1 << 10), true},
		{"large ones are allowed", `"maxRequestHeadersKb": 200`, large(199 << 10), true},
		{"large ones are allowed, and these are larger", `"maxRequestHeadersKb": 200`, large(200 << 10), false},
		{"many large ones are allowed", `"maxRequestHeadersKb": 96, "commonHttpProtocolOptions": {"maxHeadersCount": 3000}`, many(2900), true},
		{"the largest that may be", `"maxRequestHeadersKb": 8192`, large(8191 << 10), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := forgedTo{came: make(chan map[string][]string, 6)}
			s := serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
				return withManager(t, rawListener(t, address, "", "", ""), tt.fields)
			}, app, app)
			for _, protocol := range authorizationProtocols {
				before := len(app.came)
				code, err := s.send(t, protocol, nil, tt.sent)
				served := len(app.came) > before
				refused := err == nil && code == http.StatusRequestHeaderFieldsTooLarge
				if protocol == "gRPC" {
					refused = status.Code(err) == codes.ResourceExhausted
				}
				if served != tt.want || tt.want && (err != nil || code != http.StatusOK) || !tt.want && !refused {
					t.Errorf("%s: served %t, want %t: status %d, %v", protocol, served, tt.want, code, err)
				}
				if code, err := s.send(t, protocol, nil, nil); err != nil || code != http.StatusOK {
					t.Errorf("%s: the next one: status %d, %v", protocol, code, err)
				}
			}
		})
	}
}

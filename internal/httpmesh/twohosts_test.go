package httpmesh

import (
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/discovery"
)

// TestV05_ARequestIsForOneHost: the header Host that a client of HTTP/2 sends beside
// ":authority" comes to nobody, and if it names another host the request is refused.
func TestV05_ARequestIsForOneHost(t *testing.T) {
	t.Parallel()
	type asked struct {
		host   string
		header []string
	}
	served := make(chan asked, 1)
	rules := &discovery.RBACRules{Action: discovery.RBACDeny, Policies: []discovery.RBACPolicy{{
		Permissions: []discovery.RBACRule{{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{
			Name: ":authority", Kind: discovery.HeaderString, String: discovery.StringMatch{Value: "inner.test"},
		}}},
		Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}},
	}}}
	address := serveInbound(t, plainInbound(rules), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		served <- asked{r.Host, r.Header["Host"]}
	}))
	for _, tt := range []struct {
		name, authority string
		hosts           []string
		want            string
		as              string
	}{
		{"an authority", "a.test", nil, "200", "a.test"},
		{"an authority and the same host", "a.test", []string{"A.test"}, "200", "a.test"},
		{"a host alone", "", []string{"a.test"}, "200", "a.test"},
		{"an authority and another host", "a.test", []string{"inner.test"}, "400", ""},
		{"another host behind the same", "a.test", []string{"a.test", "inner.test"}, "400", ""},
		{"two hosts", "", []string{"a.test", "inner.test"}, "400", ""},
		{"a host alone that is denied", "", []string{"inner.test"}, "403", ""},
		{"a name that is denied, in brackets", "[inner.test]:80", nil, "400", ""},
		{"a name that is denied, behind a space", "inner.test ", nil, "400", ""},
		{"a name that is denied, and two dots", "inner.test..", nil, "400", ""},
		{"an address in brackets", "[::1]:80", nil, "200", "[::1]:80"},
		{"an authority that is denied, and another host", "inner.test", []string{"a.test"}, "400", ""},
	} {
		fields := [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", "/"}}
		if tt.authority != "" {
			fields = append(fields, [2]string{":authority", tt.authority})
		}
		for _, host := range tt.hosts {
			fields = append(fields, [2]string{"host", host})
		}
		if got := askHTTP2(t, address, fields); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		select {
		case got := <-served:
			if tt.as == "" || got.host != tt.as || got.header != nil {
				t.Errorf("%s: served as %+v, want %q", tt.name, got, tt.as)
			}
		default:
			if tt.as != "" {
				t.Errorf("%s: not served", tt.name)
			}
		}
	}
}

// askHTTP2 sends a request with these fields, and returns the status of its answer.
func askHTTP2(t *testing.T, address string, fields [][2]string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(headersHTTP2Of(fields)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(nil, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err.Error()
		}
		if f, ok := frame.(*http2.MetaHeadersFrame); ok {
			return f.PseudoValue("status")
		}
	}
}

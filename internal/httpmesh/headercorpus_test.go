package httpmesh

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/internal/condition"
)

// headerCorpus are ways to say that somebody is an admin, as lines of HTTP/1.1.
var headerCorpus = [][]string{
	{"X-Role: admin"}, {"x-role: admin"}, {"X-ROLE: admin"}, {"x-RoLe:admin"},
	{"X-Role: user", "X-Role: admin"}, {"X-Role: admin", "X-Role: user"}, {"X-Role: user", "x-role: admin"}, {"X-ROLE: user", "x-role: admin", "X-Role: user"},
	{"X-Role: user,admin"}, {"X-Role: admin,user"}, {"X-Role: user, admin"}, {"X-Role: user , admin , user"}, {"X-Role: user,\tadmin"},
	{"X-Role: user", "X-Role: user,admin"}, {"X-Role: admin,user", "X-Role: user"},
	{"X-Role: ", "X-Role: admin"}, {"X-Role: admin", "X-Role: "}, {"X-Role: ,admin"}, {"X-Role: admin,"}, {"X-Role: ,,admin,,"}, {"X-Role:", "X-Role:", "X-Role:admin"},
	{"X-Role:\tadmin"}, {"X-Role: admin "}, {"X-Role: admin\t"}, {"X-Role:   admin   "},
	{"X-Role:\r\n admin"}, {"X-Role: user,\r\n admin"}, {"X-Role: user\r\n\t,admin"}, {"X-Role: admin\r\n "},
	{"X-Role : admin"}, {" X-Role: admin"}, {"X-Role: user", " X-Role: admin"}, {"X-Role\t: admin"},
	{"X-Role: admin\x00"}, {"X-Role: \x00admin"}, {"X-Role: user\x00,admin"}, {"X-Role\x00: admin"}, {"X-Role: admin\x7f"},
	{"X-Role: \xff,admin"}, {"X-Role: \xc3\xa9,admin"}, {"X-Role: \xe9, admin"}, {"X-Role: admin,\xe9"}, {"X-Role: \xc0\xaf", "X-Role: admin"},
	{"X-Role: admin\rX-Other: a"}, {"X-Role: user\nX-Role: admin"}, {"X-Other: a\nX-Role: admin"}, {"X-Other: a\r\n\tX-Role: admin"}, {"X-Role: user\r,admin"},
	{"Connection: X-Role", "X-Role: admin"}, {"Connection: close, x-role", "X-Role: user", "X-Role: admin"},
	append(slices.Repeat([]string{"X-Role: user"}, 100), "X-Role: admin"),
	append([]string{"X-Role: admin"}, slices.Repeat([]string{"X-Role: user"}, 100)...),
}

// seesAdmin is an application that finds an admin wherever one could.
func seesAdmin(n *atomic.Int64) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if !strings.EqualFold(name, "x-role") {
				continue
			}
			for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
				if strings.TrimSpace(part) == "admin" {
					n.Add(1)
					return
				}
			}
		}
	}
}

// rawLines sends headers as they are over HTTP/1.1, and returns the status.
func rawLines(t *testing.T, address string, lines []string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\n"+strings.Join(lines, "\r\n")+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	status, _ := bufio.NewReader(conn).ReadString('\n')
	if fields := strings.Fields(status); len(fields) > 1 {
		return fields[1]
	}
	return "closed"
}

// lowerFields sends the headers as fields of HTTP/2, where names are in lower
// case.
func lowerFields(t *testing.T, address string, lines []string) string {
	t.Helper()
	lower := make([]string, len(lines))
	for i, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		lower[i] = strings.ToLower(name) + ":" + value
	}
	return rawFields(t, address, lower)
}

// rawFields sends the headers as fields of HTTP/2, their names as they are.
func rawFields(t *testing.T, address string, lines []string) string {
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
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: strings.TrimPrefix(value, " ")})
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

// headerWays are the ways to send lines of headers.
func headerWays() map[string]func(*testing.T, string, []string) string {
	return map[string]func(*testing.T, string, []string) string{
		"HTTP/1.1": rawLines, "HTTP/2": lowerFields, "HTTP/2 in any case": rawFields,
	}
}

func roleIs(value string) discovery.RBACRule {
	return discovery.RBACRule{Kind: discovery.RBACHeader, Header: discovery.HeaderMatch{Name: "x-role", String: discovery.StringMatch{Value: value}}}
}

// rolePolicies keep admins out, each in its own way, and let users in.
func rolePolicies(t *testing.T) map[string]*discovery.RBACRules {
	policy := func(action discovery.RBACAction, permission discovery.RBACRule, condition *condition.Condition) *discovery.RBACRules {
		return &discovery.RBACRules{Action: action, Policies: []discovery.RBACPolicy{{
			Permissions: []discovery.RBACRule{permission}, Principals: []discovery.RBACRule{{Kind: discovery.RBACAny}}, Condition: condition,
		}}}
	}
	anything := discovery.RBACRule{Kind: discovery.RBACAny}
	notAdmin, inverted := discovery.RBACRule{Kind: discovery.RBACNot, Rules: []discovery.RBACRule{roleIs("admin")}}, roleIs("admin")
	inverted.Header.Invert = true
	notUser := roleIs("user")
	notUser.Header.Invert = true
	return map[string]*discovery.RBACRules{
		"DENY of a value":                   policy(discovery.RBACDeny, roleIs("admin"), nil),
		"DENY of all other values":          policy(discovery.RBACDeny, notUser, nil),
		"ALLOW of another value":            policy(discovery.RBACAllow, roleIs("user"), nil),
		"ALLOW of what it is not":           policy(discovery.RBACAllow, notAdmin, nil),
		"ALLOW of a value, inverted":        policy(discovery.RBACAllow, inverted, nil),
		"DENY by an expression":             policy(discovery.RBACDeny, anything, calltest.Condition(t, `"x-role" in request.headers && request.headers["x-role"] == "admin"`)),
		"ALLOW by an expression":            policy(discovery.RBACAllow, anything, calltest.Condition(t, `request.headers["X-Role"] == "user"`)),
		"ALLOW by what an expression isn't": policy(discovery.RBACAllow, anything, calltest.Condition(t, `!("x-role" in request.headers) || request.headers["x-role"] != "admin"`)),
	}
}

// TestV06_V08_D6_HeaderCorpus: every way to write a header that is denied, over
// raw HTTP/1.1 and raw HTTP/2. No application sees an admin.
func TestV06_V08_D6_HeaderCorpus(t *testing.T) {
	t.Parallel()
	for name, rules := range rolePolicies(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var admins atomic.Int64
			address := guardedServer(t, rules, seesAdmin(&admins))
			for protocol, send := range headerWays() {
				for _, lines := range headerCorpus {
					status := send(t, address, lines)
					if admins.Swap(0) != 0 {
						t.Errorf("%s: %q got through: %s", protocol, lines, status)
					}
				}
				if status := send(t, address, []string{"x-role: user"}); status != "200" {
					t.Errorf("%s: what is allowed got %s", protocol, status)
				}
			}
		})
	}
	if len(headerCorpus) < 40 {
		t.Errorf("only %d ways", len(headerCorpus))
	}
}

// TestTheHeaderCorpusFindsAdminsWithoutPolicies: most of the ways do work.
func TestTheHeaderCorpusFindsAdminsWithoutPolicies(t *testing.T) {
	t.Parallel()
	var admins atomic.Int64
	address := guardedServer(t, nil, seesAdmin(&admins))
	for protocol, send := range headerWays() {
		for _, lines := range headerCorpus {
			send(t, address, lines)
		}
		if n := admins.Swap(0); n < 15 && protocol != "HTTP/2 in any case" {
			t.Errorf("%s: only %d of %d ways show an admin", protocol, n, len(headerCorpus))
		}
	}
}

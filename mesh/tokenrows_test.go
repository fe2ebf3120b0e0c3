package mesh_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tokentest"
)

// tokensOf is a JWT filter with the providers a, b and, if asked for, others, that
// requires the same of every request.
func tokensOf(t *testing.T, a, b *tokentest.Issuer, requires, more, ofA string) string {
	t.Helper()
	keys := func(i *tokentest.Issuer) string {
		text, err := json.Marshal(i.Keys())
		if err != nil {
			t.Fatal(err)
		}
		return `"issuer": "` + i.Name + `", "localJwks": {"inlineString": ` + string(text) + `}`
	}
	return `{"name": "jwt", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
		"providers": {
			"a": {` + keys(a) + `, "audiences": ["shop"]` + ofA + `},
			"b": {` + keys(b) + `, "fromHeaders": [{"name": "x-b"}]}` + more + `},
		"requirementMap": {"named": {"providerName": "a"}},
		"rules": [{"match": {"prefix": "/"}, ` + requires + `}]}}, `
}

// tokenStatus is the HTTP status of what send has returned, or the one that means the
// same as that of gRPC.
func tokenStatus(t *testing.T, got int, err error) int {
	t.Helper()
	switch status.Code(err) {
	case codes.OK:
		return got
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	default:
		t.Errorf("got %v", err)
		return got
	}
}

// TestS37_RequirementsAsTheyCome over xDS, for requests of HTTP/1.1 and HTTP/2 and calls
// of gRPC: what each needs, and that nothing else comes to the application.
func TestS37_RequirementsAsTheyCome(t *testing.T) {
	t.Parallel()
	a, b := tokentest.New("https://a.test"), tokentest.New("https://b.test")
	at := func(ago time.Duration) tokentest.Object { return tokentest.Object{"exp": time.Now().Add(-ago).Unix()} }
	inA := func(raw string) [2]string { return [2]string{"authorization", "Bearer " + raw} }
	inB := func(raw string) [2]string { return [2]string{"x-b", raw} }
	// Who calls: without a token, with those of a, of b, of both, with a bad one, and one
	// for somebody else.
	callers := [][][2]string{
		nil, {inA(a.Token(nil))}, {inB(b.Token(nil))}, {inA(a.Token(nil)), inB(b.Token(nil))},
		{inA(a.Token(at(time.Hour)))}, {inA(a.Token(tokentest.Object{"aud": "bank"}))},
	}
	const ok, who, no = http.StatusOK, http.StatusUnauthorized, http.StatusForbidden
	// Nobody listens there any more.
	gone, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close()
	const unreachable = `, "r": {"issuer": "https://a.test", "audiences": ["shop"], "remoteJwks": {
		"httpUri": {"uri": "http://keys.test/keys", "cluster": "keys", "timeout": "1s"}}}`
	for _, tt := range []struct {
		name, requires, more string
		want                 [6]int
	}{
		{"a provider", `"requires": {"providerName": "a"}`, "", [6]int{who, ok, who, ok, who, no}},
		{"the other", `"requires": {"providerName": "b"}`, "", [6]int{who, who, ok, ok, who, who}},
		{"by its name", `"requirementName": "named"`, "", [6]int{who, ok, who, ok, who, no}},
		{"other audiences", `"requires": {"providerAndAudiences": {"providerName": "a", "audiences": ["bank"]}}`, "", [6]int{who, no, who, no, who, ok}},
		{"any", `"requires": {"requiresAny": {"requirements": [{"providerName": "a"}, {"providerName": "b"}]}}`, "", [6]int{who, ok, ok, ok, who, no}},
		{"all", `"requires": {"requiresAll": {"requirements": [{"providerName": "a"}, {"providerName": "b"}]}}`, "", [6]int{who, who, who, ok, who, no}},
		{"one that may be missing", `"requires": {"allowMissing": {}}`, "", [6]int{ok, ok, ok, ok, who, no}},
		{"one that may be bad", `"requires": {"allowMissingOrFailed": {}}`, "", [6]int{ok, ok, ok, ok, ok, ok}},
		{"a provider or none", `"requires": {"requiresAny": {"requirements": [{"providerName": "a"}, {"allowMissing": {}}]}}`, "", [6]int{ok, ok, ok, ok, who, no}},
		{"nothing", `"requires": {}`, "", [6]int{ok, ok, ok, ok, ok, ok}},
		{"keys that are not there", `"requires": {"providerName": "r"}`, unreachable, [6]int{who, who, who, who, who, no}},
		{"keys that are not there, if a token may be missing", `"requires": {"requiresAny": {"requirements": [{"providerName": "r"}, {"allowMissing": {}}]}}`, unreachable, [6]int{ok, who, ok, who, who, no}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := forgedTo{came: make(chan map[string][]string, 1)}
			x := newRawXDS(t)
			x.set(rawCluster(t, "keys", gone.Addr().String(), ""))
			s := serveRawServers(t, x, func(address string) *listenerv3.Listener {
				return rawListener(t, address, "", "", tokensOf(t, a, b, tt.requires, tt.more, ""))
			}, app, app)
			for _, protocol := range authorizationProtocols {
				for i, tokens := range callers {
					code, err := s.send(t, protocol, nil, tokens)
					if got := tokenStatus(t, code, err); got != tt.want[i] {
						t.Errorf("%s: caller %d got %d, want %d", protocol, i, got, tt.want[i])
					}
					if served := len(app.came) == 1; served != (tt.want[i] == ok) {
						t.Errorf("%s: caller %d: served %t", protocol, i, served)
					}
					if len(app.came) == 1 {
						<-app.came
					}
				}
			}
		})
	}
}

// TestV38_WhatIsHandedOnOfATokenAsItComes over xDS: the token goes no further unless it is
// to, what a caller has written in place of its claims goes no further ever, and clocks
// are a minute apart at most.
func TestV38_WhatIsHandedOnOfATokenAsItComes(t *testing.T) {
	t.Parallel()
	a, b := tokentest.New("https://a.test"), tokentest.New("https://b.test")
	const (
		claims   = `, "forwardPayloadHeader": "x-claims", "claimToHeaders": [{"headerName": "x-role", "claimName": "realm.role"}]`
		optional = `"requires": {"allowMissing": {}}`
	)
	spoofed := [][2]string{{"x-claims", "e30"}, {"x-role", "root"}, {"x-role", "root"}}
	cook := a.Token(tokentest.Object{"realm": tokentest.Object{"role": "cook"}})
	plain := a.Token(nil)
	payload := func(raw string) string { return strings.Split(raw, ".")[1] }
	for _, tt := range []struct {
		name, ofA, token string
		ago              time.Duration // since the token has expired, in place of token
		status           int
		want             map[string]string // of the headers that come to the application
	}{
		{"a token", claims, cook, 0, 200, map[string]string{"authorization": "", "x-claims": payload(cook), "x-role": "cook"}},
		{"a token that is handed on", claims + `, "forward": true`, cook, 0, 200, map[string]string{"authorization": "Bearer " + cook, "x-claims": payload(cook), "x-role": "cook"}},
		{"a token without the claim", claims, plain, 0, 200, map[string]string{"x-claims": payload(plain), "x-role": ""}},
		{"no token", claims, "", 0, 200, map[string]string{"x-claims": "", "x-role": ""}},
		{"a token that has expired lately", claims, "", time.Second, 200, nil},
		{"a token that has expired", claims, "", 2 * time.Minute, 401, nil},
		{"a token that has expired lately, among good clocks", claims + `, "clockSkewSeconds": 5`, "", 30 * time.Second, 401, nil},
		{"a token that has expired, among bad clocks", claims + `, "clockSkewSeconds": 600`, "", 2 * time.Minute, 200, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app := forgedTo{came: make(chan map[string][]string, 1)}
			s := serveRawServers(t, newRawXDS(t), func(address string) *listenerv3.Listener {
				return rawListener(t, address, "", "", tokensOf(t, a, b, optional, "", tt.ofA))
			}, app, app)
			for _, protocol := range authorizationProtocols {
				token := tt.token
				if tt.ago != 0 { // made now: a test may have to wait for minutes on a busy machine
					token = a.Token(tokentest.Object{"exp": time.Now().Add(-tt.ago).Unix()})
				}
				sent := spoofed
				if token != "" {
					sent = append([][2]string{{"authorization", "Bearer " + token}}, spoofed...)
				}
				code, err := s.send(t, protocol, nil, sent)
				if got := tokenStatus(t, code, err); got != tt.status {
					t.Errorf("%s: %d, want %d", protocol, got, tt.status)
					continue
				}
				if tt.status != http.StatusOK {
					continue
				}
				got := arrived(t, app.came)
				for name, want := range tt.want {
					if got[name] != want {
						t.Errorf("%s: %s is %q, want %q", protocol, name, got[name], want)
					}
				}
			}
		})
	}
}

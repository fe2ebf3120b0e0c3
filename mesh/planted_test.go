package mesh_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/otel/meshotel"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// planted is a mesh full of secrets, and all that it tells.
type planted struct {
	*worldtest.World

	t    *testing.T
	root *tlstest.CA
	kept string // where last known good configuration is
	// secrets are what must be found nowhere, by what they are.
	secrets map[string]string
	spans   *tracetest.InMemoryExporter
	metrics *metric.ManualReader
	meters  *metric.MeterProvider

	mu   sync.Mutex
	told map[string]*bytes.Buffer // guarded by mu; by where it was told
}

// The secrets that are in the configuration and in requests.
const (
	plantedRoute    = "Bearer planted-in-a-route"
	plantedMatch    = "planted-in-a-match"
	plantedQuery    = "planted-in-a-query"
	plantedCheck    = "planted-for-the-check"
	plantedPolicy   = "planted-in-a-policy"
	plantedCookie   = "planted-in-a-cookie"
	plantedPassword = "planted-password"
	plantedKey      = "planted-api-key"
	plantedAnswer   = "planted-in-an-answer"
	plantedBody     = "planted-in-a-body"
	plantedSecret   = "planted-among-the-keys-of-an-issuer"
)

// plantedConfig are the secrets that the control plane sends in fields for any text.
var plantedConfig = []string{plantedRoute, plantedMatch, plantedQuery, plantedCheck, plantedPolicy}

func newPlanted(t *testing.T) *planted {
	t.Helper()
	p := &planted{
		t: t, root: tlstest.NewCA(t), kept: t.TempDir(), told: make(map[string]*bytes.Buffer),
		spans: tracetest.NewInMemoryExporter(), metrics: metric.NewManualReader(),
		secrets: map[string]string{
			"the header of a route": plantedRoute, "the header that a route matches": plantedMatch, "the parameter that a route matches": plantedQuery,
			"the credential of a check": plantedCheck, "the header of a policy": plantedPolicy, "a cookie": plantedCookie, "a password": plantedPassword,
			"an API key": plantedKey, "the header of an answer": plantedAnswer, "a body": plantedBody,
			"a symmetric key of tokens": plantedSecret, "a symmetric key of tokens as it is written": tokentest.Encode([]byte(plantedSecret)),
		},
	}
	p.meters = metric.NewMeterProvider(metric.WithReader(p.metrics))
	p.World = worldtest.NewLogged(t, p.root, "", slog.NewJSONHandler(p.teller("log"), &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	certificate, key := p.root.PEM(t)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	p.addKey("the key of the CA", pair.PrivateKey.(*ecdsa.PrivateKey))
	return p
}

// addKey adds a private key in every form in which Go would print it.
func (p *planted) addKey(name string, key *ecdsa.PrivateKey) {
	p.t.Helper()
	scalar, err := key.Bytes()
	if err != nil {
		p.t.Fatal(err)
	}
	p.secrets[name] = string(scalar)
	p.secrets[name+" in hex"] = hex.EncodeToString(scalar)
	p.secrets[name+" as a number"] = key.D.String() //nolint:staticcheck // what fmt would print
	p.secrets[name+" as bytes"] = strings.Trim(fmt.Sprintf("%d", scalar), "[]")
}

// teller remembers what is told somewhere.
func (p *planted) teller(where string) io.Writer { return &plantedTeller{p, where} }

type plantedTeller struct {
	planted *planted
	where   string
}

func (w *plantedTeller) Write(b []byte) (int, error) {
	w.planted.mu.Lock()
	defer w.planted.mu.Unlock()
	if w.planted.told[w.where] == nil {
		w.planted.told[w.where] = new(bytes.Buffer)
	}
	return w.planted.told[w.where].Write(b)
}

// tell remembers what was told somewhere, and fails the test if it was nothing.
func (p *planted) tell(where string, text ...any) {
	p.t.Helper()
	said := fmt.Sprintln(text...)
	if strings.TrimSpace(said) == "" {
		p.t.Errorf("%s tells nothing", where)
	}
	_, _ = io.WriteString(p.teller(where), said)
}

// hooks are those of OpenTelemetry, and one that tells all that it is told.
func (p *planted) hooks() *observe.Hooks {
	p.t.Helper()
	telemetry, err := meshotel.New(
		meshotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(p.spans))),
		meshotel.WithMeterProvider(p.meters))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = telemetry.Close() })
	hooks := telemetry.Hooks()
	all := reflect.ValueOf(hooks).Elem()
	for i := range all.NumField() {
		name, next := all.Type().Field(i).Name, all.Field(i)
		if next.Kind() != reflect.Func {
			continue
		}
		before := reflect.ValueOf(next.Interface())
		next.Set(reflect.MakeFunc(next.Type(), func(args []reflect.Value) []reflect.Value {
			for _, arg := range args {
				if _, ok := reflect.TypeAssert[context.Context](arg); !ok { // that is the application's
					p.tell("hooks", name, fmt.Sprintf("%+v %#v", arg.Interface(), arg.Interface()))
				}
			}
			switch {
			case !before.IsNil():
				return before.Call(args)
			case next.Type().NumOut() == 1:
				return args[:1]
			}
			return nil
		}))
	}
	return hooks
}

// options are those of a member whose key is known to the test.
func (p *planted) options(account, instance string) []mesh.Option {
	p.t.Helper()
	cert := p.root.Workload(p.t, "spiffe://cluster.local/ns/shop/sa/"+account)
	p.addKey("the key of the "+instance, cert.PrivateKey.(*ecdsa.PrivateKey))
	identity, err := meshtls.NewIdentity(cert, []*x509.Certificate{p.root.Certificate})
	if err != nil {
		p.t.Fatal(err)
	}
	return []mesh.Option{
		mesh.WithIdentity("default", meshtls.NewStatic(identity)), mesh.WithHooks(p.hooks()),
		mesh.LastKnownGood{Dir: filepath.Join(p.kept, instance)},
	}
}

// addTokens adds the tokens of accounts, with which they ask the control plane.
func (p *planted) addTokens(accounts ...string) {
	p.t.Helper()
	for _, account := range accounts {
		config := p.Bootstrap("shop", account, nil).Servers[0].CallCreds[0].Config
		_, file, _ := strings.Cut(string(config), `":"`)
		token, err := os.ReadFile(strings.TrimSuffix(file, `"}`))
		if err != nil {
			p.t.Fatal(err)
		}
		p.secrets["the token of the "+account] = string(token)
	}
}

// plantedYAML is a configuration with every credential that may be in one.
func plantedYAML(issuer *tokentest.Issuer, payment, authz *worldtest.Payment) string {
	_, port, _ := strings.Cut(authz.HTTP, ":")
	return services(payment) + fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: authz, namespace: shop}
spec:
  hosts: [authz.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 8000, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %[1]s}, serviceAccount: payment}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: authz
      envoyExtAuthzHttp:
        service: authz.shop.svc.cluster.local
        port: 8000
        timeout: 5s
        includeRequestHeadersInCheck: [authorization, cookie, test-script, test-answer]
        includeAdditionalHeadersInCheck: {x-authz-token: %[2]s}
        headersToUpstreamOnAllow: [x-upstream-token]
        headersToDownstreamOnDeny: [set-cookie]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  jwtRules: [{issuer: "%[3]s", audiences: [shop], forwardOriginalToken: true, outputPayloadToHeader: x-claims, jwks: '%[4]s'}, {issuer: "%[3]s/own", jwks: '%[9]s'}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {selector: {matchLabels: {app: payment}}, action: CUSTOM, provider: {name: authz}, rules: [{to: [{operation: {paths: [/charge]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec: {selector: {matchLabels: {app: payment}}, action: DENY, rules: [{when: [{key: "request.headers[x-api-key]", values: [%[5]s]}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - match: [{headers: {x-session: {exact: %[6]s}}}, {queryParams: {access_token: {exact: %[7]s}}}]
    route: [{destination: {host: payment}}]
    headers: {request: {set: {authorization: %[8]s}}}
  - match: [{uri: {prefix: /nowhere}}]
    route: [{destination: {host: payment, subset: none}}]
  - route: [{destination: {host: payment}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment, subsets: [{name: none, labels: {version: none}}]}
`, port, plantedCheck, issuer.Name, issuer.Keys(), plantedPolicy, plantedMatch, plantedQuery, plantedRoute,
		tokentest.KeySet(tokentest.Object{"kty": "oct", "kid": "own", "k": tokentest.Encode([]byte(plantedSecret))}))
}

// call makes a call with every secret that a caller may have, over each protocol,
// and tells the error that it got.
func (p *planted) call(m *mesh.Mesh, conn *grpc.ClientConn, path string, header map[string]string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	for _, port := range []string{"80", "82"} {
		url := "http://user:" + plantedPassword + "@" + paymentHost + ":" + port + path + "?access_token=" + plantedQuery
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(plantedBody))
		if err != nil {
			p.t.Fatal(err)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := m.Transport().RoundTrip(req)
		if err != nil {
			p.tell("errors", err, fmt.Sprintf("%+v", err))
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		p.tell("errors", resp.Status, err)
		if resp.StatusCode != http.StatusOK { // or it is the payment's, which says what it got
			p.tell("answers", resp.Status, string(body))
		}
	}
	md := metadata.New(header)
	md.Set("secret-bin", plantedKey)
	_, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(metadata.NewOutgoingContext(ctx, md),
		&grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: []byte(plantedBody)}})
	p.tell("errors", err)
}

// look asks a mesh for all that it tells when it is asked.
func (p *planted) look(m *mesh.Mesh, header map[string]string) {
	p.t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		p.tell("mesh", fmt.Sprintf(verb, m))
	}
	p.tell("resources", fmt.Sprintf("%+v", m.Resources()), fmt.Sprintf("%+v", m.ConfigSource()), m.Ready())
	questions := []ask.Request{
		{Method: http.MethodPost, URL: "http://user:" + plantedPassword + "@" + paymentHost + ":80/charge?access_token=" + plantedQuery},
		{Method: http.MethodPost, URL: "http://" + paymentHost + ":80/nowhere?access_token=" + plantedQuery},
		{Method: "/grpc.testing.TestService/UnaryCall", URL: "mesh:///" + paymentHost + ":9090", GRPC: true},
	}
	server := httptest.NewServer(admin.Handler(m))
	defer server.Close()
	answer := func(req *http.Request) {
		resp, err := server.Client().Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		p.tell("admin", string(text), err)
	}
	for _, path := range []string{"/", "/config", "/csds", "/readyz", "/unknown?token=" + plantedQuery} {
		req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		if err != nil {
			p.t.Fatal(err)
		}
		answer(req)
	}
	for _, question := range questions {
		for name, value := range header {
			if err := question.Add(name + ": " + value); err != nil {
				p.t.Fatal(err)
			}
		}
		explanation, err := question.Explain(p.t.Context(), m)
		if err != nil {
			p.t.Fatal(err)
		}
		p.tell("explain", explanation, string(explanation.JSON()))
	}
}

// collect looks at what was written, reported and kept meanwhile.
func (p *planted) collect() {
	p.t.Helper()
	for _, span := range p.spans.GetSpans() {
		p.tell("traces", fmt.Sprintf("%+v %+v %+v %+v", span.Name, span.Attributes, span.Events, span.Status))
	}
	var data metricdata.ResourceMetrics
	if err := p.metrics.Collect(p.t.Context(), &data); err != nil {
		p.t.Fatal(err)
	}
	p.tell("metrics", fmt.Sprintf("%+v", data.ScopeMetrics))
	p.tell("status of the control plane", fmt.Sprintf("%+v", p.Status()))
	for _, path := range []string{"/status", "/metrics", "/healthz", "/readyz"} {
		answer := httptest.NewRecorder()
		p.StatusHandler().ServeHTTP(answer, httptest.NewRequestWithContext(p.t.Context(), http.MethodGet, path, http.NoBody))
		p.tell("status of the control plane", answer.Body)
	}
	if err := filepath.WalkDir(p.kept, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			p.t.Errorf("%s: mode %v, %v: others may read it", path, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		if len(text) > 0 { // but for locks
			p.tell("last known good", path, string(text))
		}
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
}

// encoded is what may be something else, encoded.
var encoded = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}={0,2}`)

// search looks for the secrets in all that was told, in whatever form.
func (p *planted) search() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, where := range []string{"log", "hooks", "errors", "answers", "mesh", "resources", "admin", "explain", "traces", "metrics", "status of the control plane", "last known good"} {
		if p.told[where] == nil {
			p.t.Errorf("nothing was told by %s", where)
		}
	}
	for where, buffer := range p.told {
		text := buffer.String()
		for _, part := range encoded.FindAllString(text, -1) {
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
				if decoded, err := e.DecodeString(part); err == nil {
					text += string(decoded)
				}
			}
		}
		for what, secret := range p.secrets {
			if where == "last known good" && slices.Contains(plantedConfig, secret) {
				continue // it is the configuration, and nobody else's to read
			}
			if at := strings.Index(text, secret); at >= 0 {
				p.t.Errorf("%s shows %s: %q", where, what, text[max(0, at-200):min(len(text), at+len(secret)+20)])
			}
		}
		if at := strings.Index(text, "PRIVATE KEY"); at >= 0 {
			p.t.Errorf("%s has a private key: %q", where, text[max(0, at-200):at])
		}
	}
}

// TestV55_SecretsOfAWholeMeshAreInNothingThatItTells: private keys, the tokens of
// members and of callers, cookies, passwords, the credentials of checks and what is
// secret in the configuration, through calls that succeed and calls that fail in every
// way, over each protocol; then all that the mesh and the control plane say is
// searched.
func TestV55_SecretsOfAWholeMeshAreInNothingThatItTells(t *testing.T) {
	t.Parallel()
	p := newPlanted(t)
	issuer := tokentest.New("https://planted.test")
	token := issuer.Token(nil)
	expired := issuer.Token(tokentest.Object{"exp": 1})
	foreign := tokentest.New("https://planted.test").Token(nil)
	p.secrets["a caller's token"], p.secrets["a token that has expired"], p.secrets["a token of somebody else"] = token, expired, foreign
	p.secrets["the signature of a token"] = token[strings.LastIndexByte(token, '.')+1:]

	labels := map[string]string{"app": "payment"}
	payment := p.Payment("v1-a", labels, p.options("payment", "payment")...)
	authz := p.Payment("authz-a", map[string]string{"app": "authz"}, p.options("payment", "authz")...)
	p.Apply(plantedYAML(issuer, payment, authz))
	customer := p.Join("shop", "customer", nil, p.options("customer", "customer")...)
	asks := p.Join("shop", "asks", nil, mesh.WithHooks(p.hooks())) // which has its key from the CA
	p.addTokens("payment", "customer", "asks")
	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })

	with := func(changes ...string) map[string]string {
		header := map[string]string{
			"authorization": "Bearer " + token, "cookie": "session=" + plantedCookie, "x-api-key": plantedKey,
			worldtest.AnswerHeader: "set-cookie=" + plantedAnswer + ",x-upstream-token=" + plantedAnswer,
		}
		for i := 0; i < len(changes); i += 2 {
			header[changes[i]] = changes[i+1]
		}
		return header
	}
	until(t, "the policies are in force", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+paymentHost+":80/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", plantedPolicy)
		resp, err := customer.Transport().RoundTrip(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusForbidden
	})
	for _, header := range []map[string]string{
		with(), with("x-session", plantedMatch), with("x-api-key", plantedPolicy),
		with("authorization", "Bearer "+expired), with("authorization", "Bearer "+foreign), with("authorization", "Bearer "+token+token),
		with("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("user:"+plantedPassword))),
		with(worldtest.ScriptHeader, "fail=401/16"), with(worldtest.ScriptHeader, "fail=503/14"),
	} {
		p.call(customer, conn, "/charge", header)
		p.call(customer, conn, "/nowhere", header)
	}
	p.look(customer, with("x-session", plantedMatch))
	p.look(payment.Mesh, with())
	p.look(asks, with())

	// Who is refused: at the payment, at the control plane, by name and by form.
	if _, err := askOverTLS(t, payment.HTTP, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{tlstest.NewCA(t).Workload(t, "spiffe://cluster.local/ns/shop/sa/customer")},
	}); err == nil {
		t.Error("somebody of another CA is served")
	}
	bad := *p.Bootstrap("shop", "asks", nil)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(foreign), 0o600); err != nil {
		t.Fatal(err)
	}
	bad.Servers[0].CallCreds = []bootstrap.Credentials{{Type: "jwt_token_file", Config: fmt.Appendf(nil, `{"jwt_token_file":%q}`, file)}}
	bad.CertificateProviders["default"] = bootstrap.CertificateProvider{
		Plugin: "istio_ca",
		Config: []byte(strings.Replace(string(bad.CertificateProviders["default"].Config), filepath.Base("shop.asks.token"), "missing.token", 1)),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	stranger, err := mesh.New(ctx, mesh.WithBootstrap(&bad), mesh.WithHooks(p.hooks()))
	if err == nil {
		_ = stranger.Close()
		t.Error("a member without a token has an identity")
	}
	p.tell("errors", err)
	if err := p.TryApply(strings.NewReplacer("set: {authorization", "set: {\"author ization\"", "subset: none", "subset: missing").Replace(plantedYAML(issuer, payment, authz))); err == nil {
		t.Error("a bad configuration is served")
	} else {
		p.tell("errors", err)
	}
	review := istio.Read([]istio.File{{Name: "mesh.yaml", Data: []byte(plantedYAML(issuer, payment, authz))}}, istio.Options{})
	p.tell("errors", review.Problems, review.Warnings)

	authz.Kill()
	p.call(customer, conn, "/charge", with())
	payment.Kill()
	p.call(customer, conn, "/charge", with())
	for _, m := range []*mesh.Mesh{customer, payment.Mesh, authz.Mesh} { // which writes what is to be kept
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	p.collect()
	p.search()
}

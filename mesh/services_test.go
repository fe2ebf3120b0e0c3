package mesh_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tokentest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
)

// lineLog keeps the lines of a log as texts.
type lineLog struct {
	mu    sync.Mutex
	lines strings.Builder // guarded by mu
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}

// take returns what was logged since the last time, of the lines that have a text.
func (l *lineLog) take(of string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.lines.String()) {
		if strings.Contains(line, of) {
			lines = append(lines, line)
		}
	}
	l.lines.Reset()
	return lines
}

// askedServer is a server of the mesh whose requests need a token or the word of a
// service, and what its operator sees.
type askedServer struct {
	*meshtest.World

	mesh    *mesh.Mesh
	log     lineLog
	service *meshtest.Instance
	answer  atomic.Pointer[http.HandlerFunc] // of the service
	client  *http.Client

	mu      sync.Mutex
	reasons map[string]int // guarded by mu; of the hooks
}

// newAskedServer serves under a configuration. "HOST" in it is that of the service.
func newAskedServer(t *testing.T, yaml string) *askedServer {
	t.Helper()
	s := &askedServer{World: meshtest.New(t), reasons: make(map[string]int)}
	s.service = s.Service("asked.ops", meshtest.HTTP(80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.answer.Load())(w, r) })))
	s.Apply(strings.ReplaceAll(yaml, "HOST", "asked.ops.svc.cluster.local"))
	count := func(reason string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reasons[reason]++
	}
	s.mesh = s.Workload("payment.shop", meshtest.Mesh(mesh.WithLogger(slog.New(slog.NewTextHandler(&s.log, nil)))), meshtest.Hooks(&observe.Hooks{
		KeysFetched:          func(e observe.KeysEvent) { count(e.Reason) },
		AuthorizationChecked: func(e observe.CheckEvent) { count(e.Reason) },
	}))
	network := new(memnet.Network)
	inner, err := network.Listen("10.9.9.9:80")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := s.mesh.Serve(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	serveUntilEnd(t, s.mesh.Server(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), ln)
	transport := &http.Transport{DialContext: network.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	s.client = &http.Client{Transport: transport}
	return s
}

func (s *askedServer) answers(f http.HandlerFunc) { s.answer.Store(&f) }

// ask makes a request and returns its status.
func (s *askedServer) ask(t *testing.T, token string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.9.9.9/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// seen is the only service that the operator sees, as the mesh and its admin page say.
func (s *askedServer) seen(t *testing.T) (mesh.ServiceState, string) {
	t.Helper()
	states := s.mesh.Services()
	if len(states) != 1 {
		t.Fatalf("%d services: %+v", len(states), states)
	}
	recorder := httptest.NewRecorder()
	admin.Handler(s.mesh).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/config", http.NoBody))
	var page struct {
		Services []json.RawMessage `json:"services"`
	}
	if err := json.Unmarshal(recorder.Body.Bytes(), &page); err != nil || len(page.Services) != 1 {
		t.Fatalf("%v: %s", err, recorder.Body)
	}
	return states[0], string(page.Services[0])
}

const tokensYAML = `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: ISSUER, jwksUri: "http://HOST/keys?key=marker"}]}
`

const authorizerYAML = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: authorizer}, rules: [{}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - {name: authorizer, envoyExtAuthzHttp: {service: HOST, port: 80, timeout: 1s, failOpen: OPEN}}
`

// TestV32_V58_AFailingServiceOfFiltersIsToldToTheOperator: once when it begins, seldom
// while it goes on and once when it is over, however many requests are refused for it:
// in the log, in the hooks, and as long as it lasts on the admin page.
func TestV32_V58_AFailingServiceOfFiltersIsToldToTheOperator(t *testing.T) {
	t.Parallel()
	issuer := tokentest.New(tokentest.Name)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	keys, authorizer := strings.ReplaceAll(tokensYAML, "ISSUER", issuer.Name), strings.ReplaceAll(authorizerYAML, "OPEN", "false")
	for _, tt := range []struct {
		name, yaml string
		good, bad  http.HandlerFunc // bad is nil for one that is not there
		refused    int
		reason     string
		says       string // of the error
	}{
		{"keys: nobody is there", keys, text(issuer.Keys()), nil, 401, "unreachable", ""},
		{"keys: no answer", keys, text(issuer.Keys()), silent, 401, "timeout", "no answer in time"},
		{"keys: an error", keys, text(issuer.Keys()), status(500), 401, "status", "status 500"},
		{"keys: a redirect", keys, text(issuer.Keys()), status(302), 401, "status", "redirects are not followed"},
		{"keys: a page", keys, text(issuer.Keys()), text("<html>"), 401, "invalid", "the answer is no key set"},
		{"keys: none that can be used", keys, text(issuer.Keys()), text(`{"keys": [{"kty": "OCT"}]}`), 401, "invalid", "no key of the set can be used"},
		{"authorizer: nobody is there", authorizer, status(200), nil, 403, "unreachable", ""},
		{"authorizer: no answer", authorizer, status(200), silent, 403, "timeout", "no answer in time"},
		{"authorizer: an error", authorizer, status(200), status(503), 403, "status", "the service answered 503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newAskedServer(t, tt.yaml)
				token := func() string { return issuer.Token(nil) }
				if tt.refused == 403 {
					token = func() string { return "" }
				}
				kind := "no new keys for tokens"
				if tt.refused == 403 {
					kind = "no answer of the authorization service"
				}
				if tt.bad == nil {
					s.service.Kill()
				} else {
					s.answers(tt.bad)
				}
				begun := time.Now()
				var lines []string
				const requests = 150
				for range requests {
					if got := s.ask(t, token()); got != tt.refused {
						t.Fatalf("refused with %d", got)
					}
					time.Sleep(8 * time.Second)
				}
				lines = s.log.take(kind)
				if most := int(time.Since(begun)/(10*time.Minute)) + 1; len(lines) < 2 || len(lines) > most {
					t.Errorf("%d lines in %v, want 2 to %d:\n%s", len(lines), time.Since(begun), most, strings.Join(lines, ""))
				}
				for _, want := range []string{"level=WARN", `cluster=outbound|80||asked.ops.svc.cluster.local`, "reason=" + tt.reason, tt.says, "are refused", "failures=1 "} {
					if !strings.Contains(lines[0], want) {
						t.Errorf("no %q in %s", want, lines[0])
					}
				}
				if tt.refused == 401 && (!strings.Contains(lines[0], "url=http://asked.ops.svc.cluster.local/keys ") || !strings.Contains(lines[0], "providers=")) {
					t.Errorf("not which keys: %s", lines[0])
				}
				if strings.Contains(strings.Join(lines, ""), "marker") {
					t.Error("the query is in the log")
				}
				state, page := s.seen(t)
				if !state.Failing || state.Harmless || state.Reason != tt.reason || state.Err == nil || state.Failures < requests/2 ||
					time.Since(state.Since) < 19*time.Minute || !state.Succeeded.IsZero() {
					t.Errorf("%+v", state)
				}
				for _, want := range []string{`"FAILING"`, tt.reason, tt.says} {
					if !strings.Contains(page, want) || strings.Contains(page, "marker") {
						t.Errorf("no %q on the page: %s", want, page)
					}
				}
				s.mu.Lock()
				if len(s.reasons) != 1 || s.reasons[tt.reason] != state.Failures {
					t.Errorf("hooks: %v, %d failures", s.reasons, state.Failures)
				}
				s.mu.Unlock()
				if err := s.mesh.Ready(); err != nil {
					t.Errorf("it is not ready, as all the others then: %v", err)
				}

				s.answers(tt.good)
				if tt.bad == nil {
					s.service.Restart()
				}
				time.Sleep(time.Minute)
				for range 50 {
					if got := s.ask(t, token()); got != 200 {
						t.Fatalf("when it is back: %d", got)
					}
				}
				if state, page = s.seen(t); state.Failing || state.Failures != 0 || state.Succeeded.IsZero() || !strings.Contains(page, `"OK"`) {
					t.Errorf("when it is back: %+v, %s", state, page)
				}
				if lines := s.log.take(" again\""); len(lines) != 1 || !strings.Contains(lines[0], "level=INFO") {
					t.Errorf("when it is back: %q", lines)
				}
			})
		})
	}
}

// TestAServiceThatComesAndGoesFillsNoLog: nor do requests that pass nevertheless.
func TestAServiceThatComesAndGoesFillsNoLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newAskedServer(t, strings.ReplaceAll(authorizerYAML, "OPEN", "true"))
		var n atomic.Int64
		s.answers(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1)%2 == 0 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		for range 300 { // two minutes
			if got := s.ask(t, ""); got != 200 {
				t.Fatal(got)
			}
			time.Sleep(400 * time.Millisecond)
		}
		if lines := s.log.take("authorization service"); len(lines) < 2 || len(lines) > 6 || !strings.Contains(lines[0], "requests pass without it") {
			t.Errorf("%d lines: %q", len(lines), lines)
		}
		state, page := s.seen(t)
		if !state.Failing || !state.Harmless || !strings.Contains(page, "FAILING_HARMLESSLY") {
			t.Errorf("%+v, %s", state, page)
		}
	})
}

// TestKeysOfBeforeAreUsedWhileNewOnesCannotBeHad: which the operator is told of before
// they expire.
func TestKeysOfBeforeAreUsedWhileNewOnesCannotBeHad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		issuer := tokentest.New(tokentest.Name)
		s := newAskedServer(t, strings.ReplaceAll(tokensYAML, "ISSUER", issuer.Name))
		s.answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, issuer.Keys()) })
		if got := s.ask(t, issuer.Token(nil)); got != 200 {
			t.Fatal(got)
		}
		s.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
		var state mesh.ServiceState
		for range 60 {
			if got := s.ask(t, issuer.Token(nil)); got != 200 {
				t.Fatal(got)
			}
			synctest.Wait()
			if state, _ = s.seen(t); state.Failing {
				break
			}
			time.Sleep(time.Minute)
		}
		lines := s.log.take("no new keys for tokens")
		if !state.Failing || !state.Harmless || len(lines) != 1 || !strings.Contains(lines[0], "keys of before are in use") {
			t.Errorf("%+v: %q", state, lines)
		}
		// What nobody asks for any more is forgotten.
		time.Sleep(2 * time.Hour)
		if states := s.mesh.Services(); len(states) != 0 {
			t.Errorf("%+v", states)
		}
	})
}

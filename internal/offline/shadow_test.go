package offline_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/internal/offline"
	"github.com/inboardmesh/inboard/mesh"
)

// What is said never to be reached is reached by no request of many.
func TestShadowedRoutesAreNeverReached(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	shadowed, reached := 0, 0
	for range 150 {
		var b strings.Builder
		b.WriteString(services + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: payment, namespace: shop}\nspec:\n  hosts: [payment]\n  http:\n")
		const rules = 4
		for i := range rules {
			fmt.Fprintf(&b, "  - {match: [{%s}], directResponse: {status: %d}}\n", randomMatch(r), 200+i)
		}
		files := []istio.File{{Name: "x.yaml", Data: []byte(b.String())}}
		config, problems := istio.Parse(files, istio.Options{})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		dead := make(map[int]bool)
		for _, w := range config.Warnings() {
			var rule int
			if _, err := fmt.Sscanf(w.Field, "spec.http[%d]", &rule); err == nil && w.Code == "shadowed-route" {
				dead[rule] = true
				shadowed++
			}
		}
		m, err := offline.New(files, offline.Node{})
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			req := randomRequest(r)
			e, err := m.Explain(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if e.Verdict != mesh.VerdictDirectResponse {
				continue
			}
			reached++
			if dead[e.Answer.Status-200] {
				t.Errorf("%v with %v reaches a rule that is shadowed:\n%v\n%s", req, req.Header, e, b.String())
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if shadowed == 0 || reached == 0 {
		t.Errorf("%d rules are shadowed, %d requests reached one: the test shows nothing", shadowed, reached)
	}
}

func pickOf(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

func randomMatch(r *rand.Rand) string {
	value := func() string {
		return pickOf(r, "{exact: a}", "{exact: ab}", "{prefix: a}", "{prefix: ab}", `{regex: "a.*"}`, `{regex: "*"}`)
	}
	parts := []string{"uri: " + pickOf(r, "{exact: /a}", "{exact: /ab}", "{prefix: /a}", "{prefix: /A}", "{prefix: /}", `{regex: "/a.*"}`)}
	if !strings.Contains(parts[0], "regex") && r.IntN(3) == 0 {
		parts[0] += ", ignoreUriCase: true"
	}
	if r.IntN(3) == 0 {
		parts = append(parts, "headers: {x: "+value()+"}")
	}
	if r.IntN(3) == 0 {
		parts = append(parts, "withoutHeaders: {y: "+value()+"}")
	}
	if r.IntN(4) == 0 {
		parts = append(parts, "queryParams: {q: "+value()+"}")
	}
	if r.IntN(4) == 0 {
		parts = append(parts, "method: "+pickOf(r, "{exact: GET}", "{exact: PUT}", `{regex: "GET|PUT"}`))
	}
	return strings.Join(parts, ", ")
}

func randomRequest(r *rand.Rand) *ask.Request {
	req := &ask.Request{
		Method: pickOf(r, "GET", "PUT", "POST"),
		URL:    "http://payment.shop" + pickOf(r, "/", "/a", "/ab", "/A", "/Ab", "/abc") + pickOf(r, "", "?q=a", "?q=ab", "?q"),
		Header: make(map[string][]string),
	}
	for _, name := range []string{"x", "y"} {
		if r.IntN(2) == 0 {
			req.Header[name] = []string{pickOf(r, "a", "ab", "abc", "b")}
		}
	}
	return req
}

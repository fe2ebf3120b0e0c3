package meshtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/mesh/meshtest"
)

// logged is a test whose log is looked at.
type logged struct {
	testing.TB
	lines []string
}

func (l *logged) Logf(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func TestWarningsAreLoggedOnceAndCanBeAskedFor(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		log := &logged{TB: t}
		w := meshtest.New(log)
		for _, version := range []string{"v1", "v2"} {
			w.Service("payment.shop", meshtest.Version(version))
		}
		if got := w.Warnings(); len(got) > 0 || len(log.lines) > 0 {
			t.Errorf("without YAML: warnings %q, log %q", got, log.lines)
		}
		weights := subsets("v1", "v2") + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - route:
    - {destination: {host: payment, subset: v1}, weight: 50}
    - {destination: {host: payment, subset: v2}, weight: 60}
`
		backend := `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: payment, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: payment, port: 80}]
  rules: [{backendRefs: [{name: paymint, port: 80}]}]
`
		w.Apply(weights)
		wantWarnings(t, w, log, "VirtualService shop/payment: spec.http[0].route: ")
		if err := w.Try(backend); err != nil {
			t.Error(err)
		}
		wantWarnings(t, w, log, "HTTPRoute shop/payment: spec.rules[0].backendRefs[0].name: ")
		log.lines = append(log.lines, "last")
		w.Apply(weights)
		if got := w.Warnings(); len(got) != 1 || log.lines[len(log.lines)-1] != "last" {
			t.Errorf("a second time: warnings %q, log %q", got, log.lines)
		}
		w.Apply(retryYAML)
		if got := w.Warnings(); slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "weight") }) {
			t.Errorf("after they have been mended: %q", got)
		}
	})
}

// wantWarnings wants one warning, which is the last line of the log too.
func wantWarnings(t *testing.T, w *meshtest.World, log *logged, want string) {
	t.Helper()
	got := w.Warnings()
	if len(got) != 1 || !strings.HasPrefix(got[0], "config.yaml:") || !strings.Contains(got[0], " warning: "+want) {
		t.Errorf("warnings %q, want one of %q", got, want)
		return
	}
	if len(log.lines) == 0 || log.lines[len(log.lines)-1] != "meshtest: "+got[0] {
		t.Errorf("log %q, want %q", log.lines, got[0])
	}
}

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// plantedYAML has secrets in all the places of a configuration in which there may be
// one. They begin with "s3cret".
const plantedYAML = paymentYAML + `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    extensionProviders:
    - name: authz
      envoyExtAuthzHttp: {service: payment.shop.svc.cluster.local, port: 80, includeAdditionalHeadersInCheck: {x-authz-token: s3cret-check}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: keys, namespace: shop}
spec: {rules: [{when: [{key: "request.headers[x-api-key]", values: [s3cret-policy]}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - name: session
    match: [{headers: {cookie: {exact: s3cret-cookie}}}, {headers: {x-api-key: {regex: s3cret-expression}}}]
    route: [{destination: {host: payment.shop.svc.cluster.local}, headers: {response: {set: {set-cookie: s3cret-answer}}}}]
  - name: everyone
    route: [{destination: {host: payment.shop.svc.cluster.local}}]
    headers: {request: {set: {authorization: Bearer s3cret-route}}}
`

// TestV55_NoCommandPrintsWhatMayBeASecret: of files that are good and of files that are
// not, and of the requests that are asked about.
func TestV55_NoCommandPrintsWhatMayBeASecret(t *testing.T) {
	t.Parallel()
	directory := func(edits ...string) string {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "mesh.yaml"), strings.NewReplacer(edits...).Replace(plantedYAML))
		return dir
	}
	good := directory()
	requests := filepath.Join(t.TempDir(), "requests.json")
	write(t, requests, `{"method": "GET", "host": "payment.shop", "path": "/pay?access_token=s3cret-query", "headers": {"authorization": "Bearer s3cret-token", "x-api-key": "s3cret-other"}}
{"method": "GET", "host": "payment.shop", "path": "/pay", "headers": {"cookie": "s3cret-cookie"}}
`)
	secret := []string{"-H", "authorization: Bearer s3cret-token", "-H", "cookie: s3cret-other", "-H", "x-api-key: s3cret-other"}
	for name, args := range map[string][]string{
		"validate":                             {"validate", good},
		"validate as JSON":                     {"validate", "--output", "json", good},
		"validate of a line break in a header": {"validate", directory("Bearer s3cret-route", `"Bearer s3cret-route\n"`)},
		"validate of a bad name of a header":   {"validate", directory("authorization: Bearer", "author ization: Bearer")},
		"validate of a bad expression":         {"validate", directory("regex: s3cret-expression", `regex: "s3cret-expression("`)},
		"validate of a number for a text":      {"validate", directory("exact: s3cret-cookie", "exact: {s3cret-cookie: 1}")},
		"validate of a bad check":              {"validate", directory("x-authz-token: s3cret-check", `x-authz-token: "s3cret-check\n"`)},
		"validate of a bad policy":             {"validate", directory("values: [s3cret-policy]", `values: ["s3cret-policy\n*"]`)},
		"validate of a Secret":                 {"validate", directory("kind: ServiceEntry", "kind: Secret", "resolution: STATIC", "resolution: s3cret-key")},
		"validate of a bad command":            {"validate", directory("Bearer s3cret-route", `"Bearer s3cret-route %S3CRET%"`)},
		"validate of no YAML":                  {"validate", directory("authorization: Bearer", "authorization: [Bearer")},
		"explain":                              append([]string{"explain", "--config", good, "GET", "http://payment.shop/pay?access_token=s3cret-query"}, secret...),
		"explain as JSON":                      append([]string{"explain", "--output", "json", "--config", good, "GET", "http://payment.shop/pay?access_token=s3cret-query"}, secret...),
		"explain of a bad configuration":       append([]string{"explain", "--config", directory("Bearer s3cret-route", `"Bearer s3cret-route\n"`), "GET", "http://payment.shop/"}, secret...),
		"explain with a bad header":            {"explain", "--config", good, "GET", "http://payment.shop/", "-H", "author ization: s3cret-token"},
		"explain with no header":               {"explain", "--config", good, "GET", "http://payment.shop/", "-H", "s3cret-token"},
		"explain with a password":              {"explain", "--config", good, "GET", "http://user:s3cret-password@payment.shop/"},
		"explain with a bad password":          {"explain", "--config", good, "GET", "http://user:s3cret password@payment.shop/"},
		"diff":                                 {"diff", "--requests", requests, good, directory("name: everyone", "name: all", "exact: s3cret-cookie", "exact: s3cret-none")},
		"diff as JSON":                         {"diff", "--output", "json", "--requests", requests, good, directory("exact: s3cret-cookie", "exact: s3cret-none")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, stdout, stderr := call(t, args...)
			if stdout == "" && stderr == "" {
				t.Fatal("nothing is printed")
			}
			if at := strings.Index(stdout+stderr, "s3cret"); at >= 0 {
				t.Errorf("a secret is printed:\n%s%s", stdout, stderr)
			}
		})
	}
}

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

const canaryYAML = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  http:
  - name: testers
    match: [{headers: {x-tester: {exact: "yes"}}}]
    directResponse: {status: 204}
  - name: everyone
    route: [{destination: {host: payment.shop.svc.cluster.local}}]
`

// canaryDir is a directory with a service and its routes.
func canaryDir(t *testing.T, yaml string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "service.yaml"), paymentYAML)
	write(t, filepath.Join(dir, "routes.yaml"), yaml)
	return dir
}

const paymentYAML = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
  endpoints: [{address: 10.0.0.1, serviceAccount: payment}]
`

func TestExplainOfADirectory(t *testing.T) {
	t.Parallel()
	dir := canaryDir(t, canaryYAML)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"a request", []string{"GET", "http://payment.shop/pay"}, []string{"verdict       forward\n", `not route 0   "testers": header x-tester: wants exact "yes", got (none)`, "10.0.0.1:80"}},
		{"flags after the operands", []string{"GET", "http://payment.shop/pay", "-H", "x-tester: yes"}, []string{"verdict       direct-response\n", "answer        status 204\n"}},
		{"gRPC", []string{"--grpc", "/a.B/C", "mesh:///payment.shop:80"}, []string{"grpc POST payment.shop:80/a.B/C\n", "verdict       forward\n"}},
		{"a name of the caller's namespace", []string{"--namespace", "shop", "--labels", "app=web,version=v1", "GET", "payment/"}, []string{"verdict       forward\n"}},
		{"a host that is not known", []string{"GET", "http://nobody.shop/"}, []string{"verdict       around-the-mesh: " + strconv.Quote(dir) + " has no host \"nobody.shop\"\n"}},
		{"a host that is misspelt", []string{"GET", "http://paymnet.shop/"}, []string{`has no host "paymnet.shop": did you mean "payment.shop"?` + "\n"}},
		{"a full name that is misspelt", []string{"GET", "http://paymnet.shop.svc.cluster.local/"}, []string{`has no host "paymnet.shop.svc.cluster.local": did you mean "payment.shop"?` + "\n"}},
		{"a host of another namespace", []string{"GET", "http://payment.bank/"}, []string{`has no host "payment.bank": did you mean "payment.shop"?` + "\n"}},
		{"a name that only its namespace knows", []string{"GET", "http://payment/"}, []string{`has no host "payment" for a caller without a namespace: write "payment.shop", or name the namespace of the caller` + "\n"}},
		{"the same, from another namespace", []string{"--namespace", "bank", "GET", "http://payment:80/"}, []string{`has no host "payment" for a caller of the namespace "bank": write "payment.shop", or name the namespace of the caller` + "\n"}},
		{"the same without such a port", []string{"--namespace", "shop", "GET", "http://payment:81/"}, []string{`has no port 81 of "payment": it has 80` + "\n"}},
		{"a port that is not there", []string{"GET", "http://payment.shop:8080/"}, []string{`has no port 8080 of "payment.shop": it has 80` + "\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := call(t, append([]string{"explain", "--config", dir}, c.args...)...)
			if code != exitOK || stderr != "" {
				t.Fatalf("code %d, %s", code, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
		})
	}
}

func TestExplainOfAProcess(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t)
	w.Service("payment.shop")
	w.Apply(canaryYAML)
	server := httptest.NewServer(http.StripPrefix("/inboard", admin.Handler(w.Workload("customer.shop"))))
	defer server.Close()
	code, stdout, stderr := call(t, "explain", "--admin", server.URL+"/inboard", "-o", "json", "GET", "http://payment.shop/pay", "-H", "X-Tester: yes")
	var e mesh.Explanation
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || code != exitOK || e.Verdict != mesh.VerdictDirectResponse {
		t.Errorf("code %d, %v, %s%s", code, err, stdout, stderr)
	}
	code, stdout, stderr = call(t, "explain", "--admin", server.URL+"/inboard", "GET", "http://payment.shop/pay")
	if code != exitOK || !strings.Contains(stdout, "route 1       \"everyone\"") {
		t.Errorf("code %d, %s%s", code, stdout, stderr)
	}
	for address, want := range map[string]string{
		server.URL:                   "404 Not Found: is it the handler of package admin?",
		"http://127.0.0.1:1/inboard": "does the process run, and does it mount the handler of package admin there?",
	} {
		if code, _, stderr := call(t, "explain", "--admin", address, "GET", "http://payment.shop/"); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: code %d, %q; want %q", address, code, stderr, want)
		}
	}
	if code, _, stderr := call(t, "explain", "--admin", server.URL+"/inboard", "GET", "ftp://payment.shop/"); code != exitUsage || !strings.Contains(stderr, `unsupported scheme "ftp": use http`) {
		t.Errorf("code %d, %q", code, stderr)
	}
}

// The caller of another region than that of its labels prefers what is there.
func TestExplainOfADirectoryForALocality(t *testing.T) {
	t.Parallel()
	dir := canaryDir(t, `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec: {host: payment.shop.svc.cluster.local, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 5}}}
`)
	yaml := strings.Replace(paymentYAML, "[{address: 10.0.0.1, serviceAccount: payment}]", "[{address: 10.0.0.1, locality: eu/a}, {address: 10.0.0.2, locality: us/a}]", 1)
	write(t, filepath.Join(dir, "service.yaml"), yaml)
	for locality, want := range map[string]string{"eu/a": "10.0.0.2:80 unknown, plaintext, priority 1", "us": "10.0.0.1:80 unknown, plaintext, priority 1"} {
		code, stdout, stderr := call(t, "explain", "--config", dir, "--labels", "istio-locality=asia", "--locality", locality, "GET", "http://payment.shop/")
		if code != exitOK || !strings.Contains(stdout, want) {
			t.Errorf("%s: code %d, %s, no %q in\n%s", locality, code, stderr, want, stdout)
		}
	}
}

func TestExplainOfNothing(t *testing.T) {
	t.Parallel()
	dir, bad := canaryDir(t, canaryYAML), canaryDir(t, "kind: Odd\n")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"GET", "http://a/"}, exitUsage, "give either --admin, to ask a process, or --config, to ask a directory"},
		{[]string{"--admin", "http://a", "--config", dir, "GET", "http://a/"}, exitUsage, "give either --admin"},
		{[]string{"--admin", "127.0.0.1:1", "GET", "http://a/"}, exitUsage, `--admin "127.0.0.1:1" is no URL: write it like http://127.0.0.1:15021`},
		{[]string{"--admin", "http://127.0.0.1:1", "GET", "http://a/", "--labels", "app=a"}, exitUsage, "--labels goes with --config: a process that is asked knows who it is"},
		{[]string{"--config", dir, "GET"}, exitUsage, "want METHOD URL, got 1 arguments"},
		{[]string{"--config", dir, "-H", "x", "GET", "http://a/"}, exitUsage, `-H: header without a name: write it like "NAME: VALUE"`},
		{[]string{"--config", dir, "--namespace", "Shop", "GET", "http://a/"}, exitUsage, `--namespace "Shop" is not a namespace: use lower case letters`},
		{[]string{"--config", dir, "--root-namespace", "a b", "GET", "http://a/"}, exitUsage, `--root-namespace "a b" is not a namespace`},
		{[]string{"--config", dir, "--labels", "app", "GET", "http://a/"}, exitUsage, `--labels "app": write it like app=payment`},
		{[]string{"--config", dir, "--locality", "/a", "GET", "http://a/"}, exitUsage, `--locality "/a": want REGION/ZONE/SUBZONE`},
		{[]string{"--admin", "http://127.0.0.1:1", "GET", "http://a/", "--locality", "eu"}, exitUsage, "--locality goes with --config"},
		{[]string{"--config", dir, "GET", "http://a:b/"}, exitUsage, `URL "http://a:b/": invalid port`},
		{[]string{"--config", dir, "GET", "/dr"}, exitUsage, `URL "/dr" has no host: use http://HOST:PORT/PATH`},
		{[]string{"--config", dir + "/none", "GET", "http://a/"}, exitFailed, "no such file or directory"},
		{[]string{"--config", bad, "GET", "http://a/"}, exitFailed, "routes.yaml:1"},
	} {
		if code, stdout, stderr := call(t, append([]string{"explain"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%v: code %d, %q; want %d, %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	before, after := canaryDir(t, canaryYAML), canaryDir(t, strings.Replace(canaryYAML, "204", "403", 1))
	requests := filepath.Join(t.TempDir(), "requests.jsonl")
	write(t, requests, `{"method":"GET","host":"payment.shop","path":"/pay"}
{"method":"GET","authority":"payment.shop","path":"/pay","headers":{"x-tester":"yes"},"duration":7}
{"method":"GET","authority":"payment.shop","path":"/pay","headers":{"x-tester":["yes"]},"duration":9}
`)
	code, stdout, stderr := call(t, "diff", before, after, "--requests", requests)
	want := requests + ":2: GET http://payment.shop/pay, 2 times\n  answer\n  - status 204\n  + status 403\n2 requests, 1 different\n"
	if code != exitFailed || stdout != want || stderr != "" {
		t.Errorf("code %d, %q, %q; want %q", code, stdout, stderr, want)
	}
	code, stdout, _ = call(t, "diff", before, after, "--requests", requests, "-o", "json")
	var found diffs
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || code != exitFailed || found.Different != 1 || found.Requests != 2 || found.Differences[0].Line != 2 {
		t.Errorf("code %d, %v, %s", code, err, stdout)
	}
	if code, stdout, stderr := call(t, "diff", before, before, "--requests", requests); code != exitOK || stdout != "2 requests, 0 different\n" || stderr != "" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

func TestDiffPrintsNoSecrets(t *testing.T) {
	t.Parallel()
	before, after := canaryDir(t, canaryYAML), canaryDir(t, strings.Replace(canaryYAML, "204", "403", 1))
	requests := filepath.Join(t.TempDir(), "requests.jsonl")
	write(t, requests, `{"method":"GET","url":"http://payment.shop/pay?token=hunter2","headers":{"x-tester":"yes","authorization":"Bearer hunter2","cookie":"a=hunter2"}}
{"method":null}
{"method":"GET","url":"http://elsewhere/"}
`)
	for _, format := range []string{"text", "json"} {
		code, stdout, stderr := call(t, "diff", before, after, "--requests", requests, "-o", format)
		if code != exitFailed || stderr != "" || strings.Contains(stdout, "hunter2") || !strings.Contains(stdout, "token=(hidden)") {
			t.Errorf("%s: code %d, %s, %s", format, code, stdout, stderr)
		}
		var found diffs
		if format != "json" {
			continue
		}
		if err := json.Unmarshal([]byte(stdout), &found); err != nil || !slices.Equal(found.OutsideLines, []int{3}) || !slices.Equal(found.SkippedLines, []int{2}) {
			t.Errorf("%v, %+v", err, found)
		}
	}
}

func TestDiffOfWhatGoesRoundTheMesh(t *testing.T) {
	t.Parallel()
	before, after := canaryDir(t, canaryYAML), canaryDir(t, strings.Replace(canaryYAML, "204", "403", 1))
	requests := filepath.Join(t.TempDir(), "requests.jsonl")
	write(t, requests, `{"method":"GET","host":"payment","path":"/pay","headers":{"x-tester":"yes"}}
{"method":null,"authority":null,"path":null}`)
	code, stdout, stderr := call(t, "diff", before, after, "--requests", requests)
	if code != exitFailed || stdout != "1 request, 0 different, 1 round the mesh (line 1)\n1 line without a request, not compared (line 2)\n" || !strings.Contains(stderr, "nothing was compared") || !strings.Contains(stderr, "--namespace") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, stderr = call(t, "diff", before, after, "--requests", requests, "--namespace", "shop")
	if code != exitFailed || !strings.HasSuffix(stdout, "\n1 request, 1 different\n1 line without a request, not compared (line 2)\n") || stderr != "" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

func TestDiffOfNothing(t *testing.T) {
	t.Parallel()
	dir, bad := canaryDir(t, canaryYAML), canaryDir(t, "kind: Odd\n")
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "requests.jsonl")
		write(t, name, text)
		return name
	}
	good := file(`{"url":"http://payment.shop/"}`)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{dir, dir}, exitUsage, "missing --requests"},
		{[]string{dir, "--requests", good}, exitUsage, "want OLD NEW, got 1 arguments"},
		{[]string{dir, dir, "--requests", good, "--namespace", "No"}, exitUsage, `--namespace "No" is not a namespace`},
		{[]string{dir, dir, "--requests", good + ".none"}, exitFailed, "no such file or directory"},
		{[]string{dir, dir, "--requests", file("\n")}, exitFailed, "has no requests: write one on each line, as JSON"},
		{[]string{dir, dir, "--requests", file(strings.Repeat(`{"method":"-"}`+"\n", 12))}, exitFailed, "has no requests: the method, the authority or the path of lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more is null"},
		{[]string{dir, dir, "--requests", file("GET /\n")}, exitFailed, "requests.jsonl: line 1: no JSON object with a request"},
		{[]string{dir, dir, "--requests", file(`{"url":"ftp://a/"}`)}, exitFailed, `requests.jsonl: line 1: mesh: URL "ftp://a/": unsupported scheme`},
		{[]string{dir, bad, "--requests", good}, exitFailed, fmt.Sprintf("%s: configuration is invalid", bad)},
	} {
		if code, stdout, stderr := call(t, append([]string{"diff"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.want) || stdout != "" {
			t.Errorf("%v: code %d, %q; want %d, %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

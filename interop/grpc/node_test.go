package grpc

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
)

// node is a client in Node.
type node struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

// answer is what became of some calls.
type answer struct {
	Hosts map[string]int `json:"hosts"`
	Codes map[string]int `json:"codes"`
	Error string         `json:"error"`
}

func newNode(t *testing.T, w *world) *node {
	t.Helper()
	program, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node: install Node 20 or newer (apt install nodejs npm)")
	}
	if _, err := os.Stat(filepath.Join("node", "node_modules", "@grpc", "grpc-js-xds")); err != nil {
		t.Skip("there is no @grpc/grpc-js-xds: npm ci --prefix interop/grpc/node")
	}
	cmd := exec.CommandContext(t.Context(), program, "client.mjs", target)
	cmd.Dir = "node"
	cmd.Env = append(os.Environ(), "GRPC_XDS_BOOTSTRAP_CONFIG="+string(w.bootstrap("customer")))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends then
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("node: %v", err)
		}
	})
	return &node{t: t, in: in, out: bufio.NewScanner(out)}
}

// call makes calls one after the other.
func (n *node) call(calls int, headers map[string]string) answer {
	n.t.Helper()
	request, err := json.Marshal(map[string]any{"calls": calls, "headers": headers})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.in.Write(append(request, '\n')); err != nil {
		n.t.Fatal(err)
	}
	if !n.out.Scan() {
		n.t.Fatalf("node says nothing: %v", n.out.Err())
	}
	var a answer
	if err := json.Unmarshal(n.out.Bytes(), &a); err != nil {
		n.t.Fatalf("%v: %s", err, n.out.Text())
	}
	return a
}

// TestNodeIsServed: grpc-js follows the embedded control plane, from LDS to EDS.
func TestNodeIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := &backend{name: "a"}, &backend{name: "b"}
	base := services(false, serve(t, grpc.NewServer(), a), serve(t, grpc.NewServer(), b))
	w.apply(with(base, "", ""))
	n := newNode(t, w)
	all := func(a answer, code string) bool { return len(a.Codes) == 1 && a.Codes[code] > 0 }
	only := func(name string) func(answer) bool {
		return func(a answer) bool { return all(a, "0") && len(a.Hosts) == 1 && a.Hosts[name] > 0 }
	}
	both := func(a answer) bool { return all(a, "0") && len(a.Hosts) == 2 }
	for _, tt := range []struct {
		name, settings, http string
		headers              map[string]string
		fail                 int64
		want                 func(answer) bool
		rejected             string
	}{
		{name: "all endpoints", want: both},
		{name: "a subset", http: " [{route: [" + to("v2") + "]}]", want: only("b")},
		{name: "another one", http: " [{route: [" + to("v1") + "]}]", want: only("a")},
		{name: "weights", want: both, http: `
  - route:
    - {destination: {host: ` + host + `, subset: v1}, weight: 50}
    - {destination: {host: ` + host + `, subset: v2}, weight: 50}`},
		{name: "a header", headers: map[string]string{"x-user": "ann"}, want: only("b"), http: `
  - {match: [{headers: {x-user: {exact: ann}}}], route: [` + to("v2") + `]}
  - {route: [` + to("v1") + `]}`},
		{name: "without the header", want: only("a"), http: `
  - {match: [{headers: {x-user: {exact: ann}}}], route: [` + to("v2") + `]}
  - {route: [` + to("v1") + `]}`},
		{name: "an aborted call", want: func(a answer) bool { return all(a, "8") }, http: `
  - fault: {abort: {grpcStatus: RESOURCE_EXHAUSTED, percentage: {value: 100}}}
    route: [{destination: {host: ` + host + `}}]`},
		{name: "retries", fail: 1, want: func(a answer) bool { return all(a, "0") }, http: `
  - retries: {attempts: 2, retryOn: unavailable}
    route: [{destination: {host: ` + host + `}}]`},
		{
			name: "a ring", settings: "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 64}}}}",
			headers: map[string]string{"x-user": "ann"}, want: func(a answer) bool { return all(a, "0") && len(a.Hosts) == 1 },
		},
		{
			name: "outlier detection", want: both,
			settings: "trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, interval: 1s}}",
		},
		{
			name: "least request, which is asked for and rejected", settings: "trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}", rejected: "LEAST_REQUEST",
			want: func(answer) bool { return w.nacks() != "" },
		},
	} {
		w.apply(with(base, tt.settings, tt.http))
		var got answer
		until(t, tt.name, func() bool {
			a.fail.Store(tt.fail)
			b.fail.Store(tt.fail)
			got = n.call(20, tt.headers)
			return tt.want(got)
		})
		t.Logf("%s: %+v", tt.name, got)
		if nacks := w.nacks(); tt.rejected == "" && nacks != "" || !strings.Contains(nacks, tt.rejected) {
			t.Errorf("%s: rejected: %s", tt.name, nacks)
		}
	}
}

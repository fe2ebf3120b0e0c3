package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

func TestStatusOfAProcess(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t)
	w.Service("payment.shop")
	m := w.Workload("customer.shop")
	server := httptest.NewServer(admin.Handler(m))
	defer server.Close()
	code, out, errs := call(t, "status", "--admin", server.URL)
	if code != exitOK || errs != "" || !strings.HasPrefix(out, "ready; configuration: none, 0 resources") || !strings.Contains(out, "nothing was asked") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	resp, err := m.HTTPClient().Get("http://payment.shop/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	code, out, errs = call(t, "status", "--admin", server.URL)
	if code != exitOK || errs != "" {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	for _, want := range []string{"configuration: live", "0 from disk", "CONNECTED", "spiffe://cluster.local/ns/shop/sa/customer", ", in "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	code, out, errs = call(t, "status", "--admin", server.URL, "-o", "json")
	var found struct {
		Ready  bool          `json:"ready"`
		Config processConfig `json:"config"`
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitOK || errs != "" {
		t.Fatalf("code %d, %v: %s%s", code, err, out, errs)
	}
	if c := found.Config; !found.Ready || c.Source.Kind != "live" || len(c.Streams) != 1 || c.Streams[0].State != "CONNECTED" || len(c.Identities) == 0 || c.Identities[0].NotAfter.IsZero() {
		t.Errorf("got %+v", found)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	code, out, _ = call(t, "status", "--admin", server.URL)
	if code != exitFailed || !strings.Contains(out, "not ready: mesh: closed") {
		t.Errorf("code %d: %s", code, out)
	}
}

func TestStatusOfAProcessThatIsNotWell(t *testing.T) {
	t.Parallel()
	const well = `"source": {"kind": "live", "live": 1}, "resources": [{"type": "Cluster", "name": "c", "state": "ACKED"}, {"type": "Listener", "name": "unknown", "state": "DOES_NOT_EXIST"}]`
	for name, c := range map[string]struct {
		config string
		want   string // "" for a process that is well
	}{
		"well":            {well, ""},
		"idle":            {well + `, "streams": [{"server": "cp:1", "state": "IDLE"}]`, ""},
		"no stream":       {well + `, "streams": [{"server": "cp:1", "state": "FAILING", "since": "2026-01-02T03:04:05Z", "failures": 3, "error": "refused\u001b[31m"}]`, "no stream to cp:1 since 2026-01-02T03:04:05Z, after 3 attempts: refused [31m"},
		"from disk":       {`"source": {"kind": "last known good", "lastKnownGood": 4, "file": "/f", "saved": "2026-01-02T03:04:05Z"}, "resources": []`, "4 resources are from disk"},
		"disk refused":    {`"source": {"kind": "live", "refused": "too old"}, "resources": []`, "the configuration on disk is not used: too old"},
		"not kept":        {`"source": {"kind": "live", "notWritten": "full"}, "resources": []`, "the configuration is not kept on disk: full"},
		"no identity":     {well + `, "identities": [{"name": "default", "error": "no token"}]`, `identity "default": no token`},
		"an old identity": {well + `, "identities": [{"name": "default", "id": "spiffe://a/b", "notAfter": "2020-01-02T03:04:05Z"}]`, "the certificate has expired at 2020-01-02T03:04:05Z"},
		"trust domains":   {well + `, "identities": [{"name": "default", "trustDomains": ["a"]}]`, ""},
		"nobody trusted":  {well + `, "identities": [{"name": "default", "trustDomains": []}]`, `identity "default": nobody is verified: its map of trust domains is empty`},
		"roots only":      {well + `, "identities": [{"name": "default"}]`, ""},
		"keys": {
			well + `, "services": [{"kind": "keys", "cluster": "c", "address": "http://k/", "state": "FAILING", "since": "2026-01-02T03:04:05Z", "failures": 2, "error": "status 500"}]`,
			"no keys from c (http://k/) since 2026-01-02T03:04:05Z, after 2 attempts; requests that need it are refused: status 500",
		},
		"harmless":        {well + `, "services": [{"kind": "authorization", "cluster": "c", "state": "FAILING_HARMLESSLY", "error": "x"}]`, "no request is refused for it: x"},
		"service is well": {well + `, "services": [{"kind": "keys", "cluster": "c", "state": "OK"}]`, ""},
		"rejected":        {`"source": {"kind": "live"}, "resources": [{"type": "Cluster", "name": "c", "state": "NACKED", "error": "no lb"}]`, `Cluster "c" is NACKED: no lb`},
		"guest":           {well + `, "guests": [{"number": 7, "listeners": [{"name": "l", "state": "REFUSED"}], "types": [{"type": "Cluster", "rejected": "bad"}]}]`, `native gRPC client 7 is refused the listener "l"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /sub/config", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "{%s}", c.config) })
			mux.HandleFunc("GET /sub/readyz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ready": true}`) })
			server := httptest.NewServer(mux)
			defer server.Close()
			want := exitOK
			if c.want != "" {
				want = exitFailed
			}
			code, out, errs := call(t, "status", "--admin", server.URL+"/sub")
			if code != want || errs != "" || !strings.Contains(out, c.want) || strings.Contains(out, "\x1b") || (c.want != "") != strings.Contains(out, "what is wrong:") {
				t.Errorf("code %d: %s%s", code, out, errs)
			}
			if code, out, _ := call(t, "status", "--admin", server.URL+"/sub", "-o", "json"); code != want || !json.Valid([]byte(out)) {
				t.Errorf("code %d: %s", code, out)
			}
		})
	}
}

func TestStatusOfWhatIsNoProcess(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(nil)
	defer other.Close()
	half := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/config" {
			fmt.Fprint(w, `{"source": {"kind": "live"}, "resources": []}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer half.Close()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--admin", "nonsense"}, exitUsage, `--admin "nonsense" is no URL: write it like http://127.0.0.1:15021`},
		{[]string{"--admin", "http://127.0.0.1:1"}, exitFailed, "does the process run, and does it mount the handler of package admin there?"},
		{[]string{"--admin", other.URL}, exitFailed, "answered with status 404, and not as the handler of package admin does"},
		{[]string{"--admin", half.URL}, exitFailed, "readyz answered with status 404"},
		{[]string{"--admin", "http://127.0.0.1:1", "--control-plane", "http://127.0.0.1:1"}, exitUsage, "give either --admin, to ask a process, or --control-plane"},
	} {
		if code, _, errs := call(t, append([]string{"status"}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
			t.Errorf("%q: code %d: %s", c.args, code, errs)
		}
	}
}

package admin_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/admin"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func call(t *testing.T, h http.Handler, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	resp := w.Result()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func newMesh(t *testing.T) (*meshtest.World, *mesh.Mesh) {
	t.Helper()
	w := meshtest.New(t)
	w.Service("payment.shop")
	w.Apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: admins
    match: [{headers: {authorization: {exact: s3cret}}}]
    directResponse: {status: 204}
  - name: everyone
    route: [{destination: {host: payment}}]
`)
	return w, w.Workload("customer.shop")
}

func TestExplain(t *testing.T) {
	t.Parallel()
	w, m := newMesh(t)
	h := admin.Handler(m)
	for name, question := range map[string]string{
		"http": `{"method":"GET","url":"http://payment.shop/pay","headers":{"authorization":["s3cret no more"]}}`,
		"grpc": `{"grpc":true,"method":"/a.B/C","url":"mesh:///payment.shop:80"}`,
	} {
		resp, body := call(t, h, http.MethodPost, "/explain", question)
		var e mesh.Explanation
		if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v: %s", name, resp.StatusCode, err, body)
		}
		if e.Protocol != name || e.Verdict != mesh.VerdictForward || e.Route.Name != "everyone" {
			t.Errorf("%s: got\n%v", name, &e)
		}
		if strings.Contains(body, "s3cret") {
			t.Errorf("a secret is in %s", body)
		}
		_, text := call(t, h, http.MethodPost, "/explain", question, "Accept", "text/plain")
		if text != e.String() {
			t.Errorf("%s: the text is\n%s\nwant\n%v", name, text, &e)
		}
	}
	if len(w.Calls()) > 0 {
		t.Errorf("calls %v", w.Calls())
	}
}

func TestExplainOfWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	_, m := newMesh(t)
	h := admin.Handler(m)
	for question, want := range map[string]string{
		`nonsense`:                               "the body is no request: ",
		`{"method":"GET"}`:                       "the URL is missing: use http://HOST:PORT/PATH",
		`{"method":"GET","url":"ftp://a/"}`:      `unsupported scheme \"ftp\": use http`,
		`{"grpc":true,"method":"x","url":"a:1"}`: `write it like \"/package.Service/Method\"`,
	} {
		resp, body := call(t, h, http.MethodPost, "/explain", question)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("%s: status %d, %s", question, resp.StatusCode, body)
		}
	}
	if resp, _ := call(t, h, http.MethodGet, "/explain", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET has the status %d", resp.StatusCode)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, m := newMesh(t)
	resp, err := m.HTTPClient().Get("http://payment.shop/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	_, body := call(t, admin.Handler(m), http.MethodGet, "/config", "")
	var got struct {
		Resources []struct {
			Type    string `json:"type"`
			Name    string `json:"name"`
			State   string `json:"state"`
			Version string `json:"version"`
		} `json:"resources"`
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	types := make(map[string]bool)
	for _, r := range got.Resources {
		types[r.Type] = r.State == "ACKED" && r.Name != "" && r.Version != ""
	}
	for _, want := range []string{"Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"} {
		if !types[want] {
			t.Errorf("no %s in %s", want, body)
		}
	}
}

// TestBS2_TheTrustDomainsOfAnIdentityAreTold, if they are told apart: that there are none
// is not that it makes no difference.
func TestBS2_TheTrustDomainsOfAnIdentityAreTold(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	for want, bundles := range map[string]map[string][]*x509.Certificate{
		`["cluster.local","partner.example"]`: {"partner.example": {ca.Certificate}, "cluster.local": {ca.Certificate}},
		`[]`:                                  {},
		``:                                    nil,
	} {
		identity, err := meshtls.NewIdentity(ca.Workload(t, "spiffe://cluster.local/ns/shop/sa/customer"), []*x509.Certificate{ca.Certificate})
		if err != nil {
			t.Fatal(err)
		}
		if bundles != nil {
			identity = identity.WithBundles(bundles)
		}
		m := meshtest.New(t).Workload("customer.shop", meshtest.Mesh(mesh.WithIdentity("default", meshtls.NewStatic(identity))))
		_, body := call(t, admin.Handler(m), http.MethodGet, "/config", "")
		var got struct {
			Identities []struct {
				Name         string          `json:"name"`
				TrustDomains json.RawMessage `json:"trustDomains"`
			} `json:"identities"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, i := range got.Identities {
			var text bytes.Buffer
			if i.TrustDomains != nil {
				if err := json.Compact(&text, i.TrustDomains); err != nil {
					t.Fatal(err)
				}
			}
			found = found || i.Name == "default" && text.String() == want
		}
		if !found {
			t.Errorf("want %s in %s", want, body)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	_, m := newMesh(t)
	h := admin.Handler(m)
	if resp, body := call(t, h, http.MethodGet, "/readyz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if resp, body := call(t, h, http.MethodGet, "/readyz", ""); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "mesh: closed") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
}

func TestV54_StrangersAreRefused(t *testing.T) {
	t.Parallel()
	_, m := newMesh(t)
	h := admin.Handler(m)
	if resp, _ := call(t, h, http.MethodPost, "/explain", "{}", "Sec-Fetch-Site", "cross-site"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("the page of another origin got the status %d", resp.StatusCode)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for host, want := range map[string]int{
		"127.0.0.1:" + port: http.StatusOK, "localhost": http.StatusOK, "[::1]:80": http.StatusOK,
		"evil.example:" + port: http.StatusForbidden, "127.0.0.1.evil.example": http.StatusForbidden,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/config", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("host %q got the status %d, want %d", host, resp.StatusCode, want)
		}
	}
}

func ExampleHandler() {
	t := &exampleTB{} // a test is one itself, and a program has mesh.New
	defer t.end()
	w := meshtest.New(t)
	w.Service("payment.shop")
	m := w.Workload("customer.shop")

	// Best on a listener of its own, on loopback.
	server := httptest.NewServer(admin.Handler(m))
	defer server.Close()

	question := `{"method": "GET", "url": "http://payment.shop/pay"}`
	resp, err := http.Post(server.URL+"/explain", "application/json", strings.NewReader(question))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	var explained mesh.Explanation
	if err := json.NewDecoder(resp.Body).Decode(&explained); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(explained.Verdict, "to", explained.Cluster.Endpoints[0].Address)
	// Output: forward to 10.0.0.1:80
}

// exampleTB lets an example have what a test has.
type exampleTB struct{ cleanups []func() }

func (*exampleTB) Helper()                           {}
func (t *exampleTB) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }
func (*exampleTB) Logf(string, ...any)               {}
func (*exampleTB) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) } //nolint:forbidigo // an example has nobody else to tell
func (*exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (*exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleTB) end() {
	for len(t.cleanups) > 0 {
		last := t.cleanups[len(t.cleanups)-1]
		t.cleanups = t.cleanups[:len(t.cleanups)-1]
		last()
	}
}

func TestX65_TheClientStatusIsServed(t *testing.T) {
	t.Parallel()
	_, m := newMesh(t)
	if _, err := m.Explain(httptest.NewRequest(http.MethodGet, "http://payment.shop/", nil)); err != nil {
		t.Fatal(err)
	}
	resp, body := call(t, admin.Handler(m), http.MethodGet, "/csds", "")
	var status struct {
		Config []struct {
			GenericXdsConfigs []struct {
				TypeURL      string `json:"typeUrl"`
				ClientStatus string `json:"clientStatus"`
			} `json:"genericXdsConfigs"`
		} `json:"config"`
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil || resp.StatusCode != http.StatusOK || len(status.Config) != 1 {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, body)
	}
	types := make(map[string]bool)
	for _, one := range status.Config[0].GenericXdsConfigs {
		types[one.TypeURL] = true
		if one.ClientStatus != "ACKED" {
			t.Errorf("%+v", one)
		}
	}
	if len(types) < 4 {
		t.Errorf("types %v", types)
	}
	if strings.Contains(body, "s3cret") {
		t.Errorf("a secret is in %s", body)
	}
}

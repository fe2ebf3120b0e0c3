package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/tls/istioca"
)

const goodYAML = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 8080, name: http, protocol: HTTP}
  endpoints:
  - address: %s
`

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// call runs a command to its end.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "usage: inboard COMMAND"},
		{[]string{"serve"}, exitUsage, `unknown command "serve"`},
		{[]string{"control-plane"}, exitUsage, "missing --config"},
		{[]string{"control-plane", "--config", dir, "x"}, exitUsage, `unexpected argument "x"`},
		{[]string{"control-plane", "--port", "1"}, exitUsage, "flag provided but not defined: -port"},
		{[]string{"control-plane", "--config", dir, "--ca-dir", dir + "/ca", "--listen", "nonsense"}, exitFailed, `--listen "nonsense"`},
		{[]string{"control-plane", "--config", dir, "--listen", "", "--status", "127.0.0.1:0"}, exitUsage, "nothing to serve: give --listen or --plaintext-listen"},
		{[]string{"control-plane", "--config", dir, "--listen", "", "--server-name", "x"}, exitUsage, "--server-name needs --listen"},
		{[]string{"control-plane", "--config", dir, "--ca-dir", dir + "/ca", "--root-namespace", "Istio-System"}, exitFailed, `root namespace "Istio-System": want a DNS label`},
		{[]string{"control-plane", "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--root-namespace", "istio system"}, exitFailed, `root namespace "istio system": want a DNS label`},
		{[]string{"control-plane", "--config", dir, "--ca-dir", dir + "/ca", "--server-name", "control.test:15012"}, exitFailed, `server name "control.test:15012": want a DNS name`},
		{[]string{"control-plane", "--config", dir + "/none", "--ca-dir", dir + "/ca"}, exitFailed, "none\": read configuration"},
		{[]string{"control-plane", "--config", dir, "--max-certificate-ttl", "10ms"}, exitUsage, "--max-certificate-ttl 10ms: want at least 1s"},
		{[]string{"control-plane", "--config", dir, "--max-streams", "0"}, exitUsage, "--max-streams 0: want at least 1"},
		{[]string{"control-plane", "--config", dir, "--max-connections", "-1"}, exitUsage, "--max-connections -1: want at least 1"},
		{[]string{"validate"}, exitUsage, "want DIR, got 0 arguments"},
		{[]string{"validate", dir + "/none"}, exitFailed, "no such file or directory"},
		{[]string{"token", "--ca-dir", dir + "/ca", "--namespace", "shop"}, exitUsage, "missing --service-account"},
		{[]string{"token", "--ca-dir", dir + "/ca", "--namespace", "Shop", "--service-account", "a"}, exitFailed, `namespace "Shop"`},
		{[]string{"bootstrap", "--namespace", "shop", "--service-account", "a"}, exitUsage, "missing --token-file or --root-file"},
		{[]string{"bootstrap", "--namespace", "shop", "--service-account", "a", "--plaintext", "--root-file", "x"}, exitUsage, "have no use with --plaintext"},
		{[]string{"bootstrap", "--namespace", "shop", "--service-account", "a", "--plaintext", "--labels", "x"}, exitUsage, `--labels "x": want KEY=VALUE`},
		{[]string{"bootstrap", "--namespace", "shop", "--service-account", "a", "--plaintext", "--locality", "a/b/c/d"}, exitUsage, `--locality "a/b/c/d"`},
		{[]string{"bootstrap", "--namespace", "shop", "--service-account", "a", "--plaintext", "--api-type", "REST"}, exitUsage, `--api-type "REST"`},
		{[]string{"version", "x"}, exitUsage, `unexpected argument "x"`},
	} {
		code, stdout, stderr := call(t, tt.args...)
		if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: code %d, output %q, errors %q; want code %d and %q", tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}
}

func TestHelp(t *testing.T) {
	t.Parallel()
	code, overview, _ := call(t, "help")
	if code != exitOK {
		t.Errorf("code %d", code)
	}
	for _, c := range commands() {
		if !strings.Contains(overview, c.name) {
			t.Errorf("overview lacks %q", c.name)
		}
		code, stdout, stderr := call(t, c.name, "--help")
		if code != exitOK || stderr != "" || !strings.HasPrefix(stdout, "usage: inboard "+c.name) {
			t.Errorf("%s: code %d, %q, %q", c.name, code, stdout, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if code, stdout, _ := call(t, "version"); code != exitOK || !strings.HasPrefix(stdout, "inboard ") || !strings.Contains(stdout, " go1.") {
		t.Errorf("code %d, %q", code, stdout)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	code, stdout, stderr := call(t, "validate", dir)
	if want := dir + ": ok: 1 file, 1 listener, 1 route table, 1 cluster\n"; code != exitOK || stdout != want || stderr != "" {
		t.Errorf("code %d, %q, %q; want %q", code, stdout, stderr, want)
	}

	bad := filepath.Join(dir, "bad.yaml")
	write(t, bad, strings.Replace(fmt.Sprintf(goodYAML, "10.0.0.1\n  nonsense: 1"), "payment", "ledger", 2))
	write(t, filepath.Join(dir, "worse.yaml"), "kind: [")
	code, stdout, stderr = call(t, "validate", dir)
	if code != exitFailed || stdout != "" {
		t.Errorf("code %d, %q", code, stdout)
	}
	for _, want := range []string{bad + ":12:", "nonsense", filepath.Join(dir, "worse.yaml") + ":1", "inboard validate: " + dir + ": 2 problems"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("errors lack %q:\n%s", want, stderr)
		}
	}
}

func TestValidateWarns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	odd := filepath.Join(dir, "odd.yaml")
	write(t, odd, "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: odd}\nspec: {host: '*.example.com'}\n")
	warning := odd + `:4:14: warning: DestinationRule default/odd: spec.host: "*.example.com": no Service or ServiceEntry has such a host: it has no effect [unknown-host]` + "\n"

	code, stdout, stderr := call(t, "validate", dir)
	if want := dir + ": ok: 2 files, 1 listener, 1 route table, 1 cluster, 1 warning\n"; code != exitOK || stdout != want || stderr != warning {
		t.Errorf("code %d, %q, %q; want %q, %q", code, stdout, stderr, want, warning)
	}
	code, stdout, stderr = call(t, "validate", "--strict", dir)
	if want := warning + "inboard validate: " + dir + ": 1 warning, with --strict\n"; code != exitFailed || stdout != "" || stderr != want {
		t.Errorf("code %d, %q, %q; want %q", code, stdout, stderr, want)
	}
}

// What is wrong with one object does not hide what is odd about others.
func TestValidateWarnsBesideProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	odd := filepath.Join(dir, "odd.yaml")
	write(t, odd, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: odd, namespace: shop}\n"+
		"spec: {hosts: [payment, '*.example.com'], http: [{match: [{uri: {prefix: a}}], route: [{destination: {host: payment}}]}]}\n")
	write(t, filepath.Join(dir, "bad.yaml"), "kind: Odd\n")
	warning := odd + `:4:74: warning: VirtualService shop/odd: spec.http[0].match[0].uri.prefix: "a" is met by no request: paths begin with a slash [impossible-match]` + "\n"
	code, stdout, stderr := call(t, "validate", dir)
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, warning) || !strings.Contains(stderr, dir+": 1 problem, 1 warning\n") {
		t.Errorf("code %d, %q, %q; want %q and not of the host, which may be in the bad file", code, stdout, stderr, warning)
	}
	code, stdout, _ = call(t, "validate", "-o", "json", dir)
	var got findings
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFailed || len(got.Problems) != 1 || len(got.Warnings) != 1 {
		t.Errorf("code %d, %v, got %+v", code, err, got)
	}
}

func TestValidateOfNothing(t *testing.T) {
	t.Parallel()
	empty, comments := t.TempDir(), t.TempDir()
	write(t, filepath.Join(empty, "README.md"), "nothing")
	write(t, filepath.Join(comments, "a.yaml"), "# later\n---\n")
	for _, c := range []struct{ dir, want string }{
		{empty, "nothing was found: no file is called *.yaml, *.yml or *.json"},
		{comments, "nothing was found: no document of a mesh is in the 1 file"},
	} {
		for _, args := range [][]string{{"validate", c.dir}, {"validate", c.dir, "-o", "json"}} {
			if code, _, stderr := call(t, args...); code != exitFailed || !strings.Contains(stderr, c.want) {
				t.Errorf("%v: code %d, %q", args, code, stderr)
			}
		}
	}
}

func TestValidatePrintsJSON(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	odd := filepath.Join(dir, "odd.yaml")
	write(t, odd, "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: odd}\nspec: {host: '*.example.com'}\n")
	code, stdout, _ := call(t, "validate", "-o", "json", dir)
	var got findings
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	want := []finding{{
		File: odd, Line: 4, Column: 14, Object: "DestinationRule default/odd", Field: "spec.host", Code: "unknown-host",
		Message: `"*.example.com": no Service or ServiceEntry has such a host: it has no effect`,
		Remedy:  "Correct the name, or ask its owner to add it. Nothing, if it is a host of the gateways alone.",
	}}
	if code != exitOK || !got.Valid || len(got.Problems) > 0 || !slices.Equal(got.Warnings, want) {
		t.Errorf("code %d, got %+v, want the warnings %+v", code, got, want)
	}
	write(t, odd, "kind: Odd\n")
	code, stdout, _ = call(t, "validate", "-o", "json", dir)
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFailed || got.Valid || len(got.Problems) != 1 {
		t.Errorf("code %d, %v, got %+v", code, err, got)
	}
	if code, _, stderr := call(t, "validate", "-o", "yaml", dir); code != exitUsage || !strings.Contains(stderr, `"yaml" is no format: use text or json`) {
		t.Errorf("code %d, %q", code, stderr)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	args := []string{"token", "--ca-dir", dir, "--namespace", "shop", "--service-account", "payment"}
	code, first, stderr := call(t, args...)
	if code != exitOK || strings.Count(first, ".") != 2 || !strings.Contains(stderr, "there is no CA in "+dir+" yet: making one") {
		t.Errorf("code %d, %q, %q", code, first, stderr)
	}
	out := filepath.Join(t.TempDir(), "token")
	code, stdout, stderr := call(t, append(args, "--out", out)...)
	if code != exitOK || stdout != "" || stderr != "" {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v", info, err)
	}
}

func TestBootstrapIsUnderstood(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := call(t, "bootstrap", "--server", "control.test:15012", "--namespace", "shop", "--service-account", "payment",
		"--token-file", "token", "--root-file", "/ca/root-cert.pem", "--labels", "app=payment,version=v1", "--labels", "x=", "--locality", "eu/a",
		"--name", "payment-1", "--ip", "10.0.0.7", "--api-type", "DELTA_GRPC", "--cluster-id", "east", "--certificate-lifetime", "1h")
	if code != exitOK || stderr != "" {
		t.Fatalf("code %d, %q", code, stderr)
	}
	config, err := bootstrap.Parse([]byte(stdout))
	if err != nil {
		t.Fatal(err)
	}
	node := config.Node
	if node.ID != "sidecar~10.0.0.7~payment-1.shop~shop.svc.cluster.local" || node.Metadata["SERVICE_ACCOUNT"] != "payment" ||
		fmt.Sprint(node.Metadata["LABELS"]) != "map[app:payment version:v1 x:]" || node.Locality.Region != "eu" || node.Locality.Zone != "a" {
		t.Errorf("node %+v", node)
	}
	if config.ServerListenerTemplate != "xds.istio.io/grpc/lds/inbound/%s" || config.Servers[0].URI != "control.test:15012" {
		t.Errorf("bootstrap %+v", config)
	}
	if instance := config.Servers[0].CertificateInstance(); instance != "default" {
		t.Errorf("the control plane is shown the certificate of %q", instance)
	}
	provider, err := istioca.ParseConfig(config.CertificateProviders["default"].Config)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(provider.TokenFile) || provider.ServerURI != "control.test:15012" || provider.Lifetime != time.Hour || provider.ClusterID != "east" {
		t.Errorf("certificate provider %+v", provider)
	}

	code, stdout, _ = call(t, "bootstrap", "--plaintext", "--server", "127.0.0.1:1", "--namespace", "shop", "--service-account", "payment")
	if code != exitOK {
		t.Fatalf("code %d", code)
	}
	if config, err = bootstrap.Parse([]byte(stdout)); err != nil || len(config.CertificateProviders) != 0 {
		t.Errorf("%+v, %v", config, err)
	}
}

// plane runs "control-plane" until the test ends.
func plane(t *testing.T, args ...string) (where ready, stop func() (code int, stderr string)) {
	t.Helper()
	var errs bytes.Buffer
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var code int
	wg.Go(func() {
		code = run(ctx, append([]string{"control-plane"}, args...), writer, &errs)
		_ = writer.Close() // always nil
	})
	stop = sync.OnceValues(func() (int, string) {
		cancel()
		wg.Wait()
		return code, errs.String()
	})
	t.Cleanup(func() { stop() })
	if err := json.NewDecoder(reader).Decode(&where); err != nil {
		_, stderr := stop()
		t.Fatalf("%v: %s", err, stderr)
	}
	return where, stop
}

func TestControlPlaneFromStartToEnd(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, caDir, readyFile := filepath.Join(base, "config"), filepath.Join(base, "ca"), filepath.Join(base, "ready")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "payment.yaml"), fmt.Sprintf(goodYAML, "10.0.0.1"))
	write(t, readyFile, "of somebody who was killed")
	where, stop := plane(t, "--config", dir, "--ca-dir", caDir, "--listen", "127.0.0.1:0", "--plaintext-listen", "127.0.0.1:0",
		"--status", "127.0.0.1:0", "--ready-file", readyFile)
	var inFile ready
	data, err := os.ReadFile(readyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &inFile); err != nil || inFile != where || where.Secure == "" || where.Plaintext == "" {
		t.Errorf("ready file has %s (%v), output %+v", data, err, where)
	}

	_, token, _ := call(t, "token", "--ca-dir", caDir, "--namespace", "shop", "--service-account", "customer")
	rootPEM, err := os.ReadFile(filepath.Join(caDir, "root-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(rootPEM)
	conn, err := grpc.NewClient(where.Secure, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(
		metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(token)))
	if err != nil {
		t.Fatal(err)
	}
	const endpoints = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	err = stream.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl:                endpoints,
		ResourceNamesSubscribe: []string{"outbound|8080||payment.shop.svc.cluster.local"},
		Node: &core.Node{Id: "x", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"NAMESPACE": structpb.NewStringValue("shop"),
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(address string) {
		t.Helper()
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got := response.String(); !strings.Contains(got, address) {
			t.Errorf("got %s, want %s", got, address)
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: endpoints, ResponseNonce: response.GetNonce()}); err != nil {
			t.Fatal(err)
		}
	}
	expect("10.0.0.1")
	write(t, filepath.Join(dir, "payment.yaml"), fmt.Sprintf(goodYAML, "10.0.0.2"))
	expect("10.0.0.2")

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+where.Status+"/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(response.Body)
	if err != nil || response.Body.Close() != nil || !strings.Contains(string(page), "spiffe://cluster.local/ns/shop/sa/customer") {
		t.Errorf("status page %s (%v)", page, err)
	}

	code, stderr := stop()
	if code != exitOK {
		t.Errorf("code %d:\n%s", code, stderr)
	}
	if strings.Contains(stderr, strings.TrimSpace(token)) {
		t.Error("the log holds the token")
	}
	if _, err := os.Stat(readyFile); !os.IsNotExist(err) {
		t.Errorf("ready file is left: %v", err)
	}
}

func TestControlPlaneDoesNotStartWithABadConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bad.yaml"), fmt.Sprintf(goodYAML, "not-an-address"))
	code, stdout, stderr := call(t, "control-plane", "--config", dir, "--listen", "", "--plaintext-listen", "127.0.0.1:0", "--status", "")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, filepath.Join(dir, "bad.yaml")+":11:") {
		t.Errorf("code %d, %q, %q", code, stdout, stderr)
	}
}

func TestControlPlaneWarnsOfListenersThatOthersReach(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		plaintext, status string
		want              []string
	}{
		{"127.0.0.1:0", "127.0.0.1:0", nil},
		{"0.0.0.0:0", "127.0.0.1:0", []string{"plaintext"}},
		{"127.0.0.1:0", ":0", []string{"status"}},
		{"0.0.0.0:0", "0.0.0.0:0", []string{"plaintext", "status"}},
	} {
		_, stop := plane(t, "--config", t.TempDir(), "--listen", "", "--plaintext-listen", tt.plaintext, "--status", tt.status)
		code, stderr := stop()
		if code != exitOK || strings.Count(stderr, "is not on loopback") != len(tt.want) {
			t.Errorf("%s, %s: code %d, %s; want %q", tt.plaintext, tt.status, code, stderr, tt.want)
		}
		for _, name := range tt.want {
			if !strings.Contains(stderr, "the "+name+" listener is not on loopback") {
				t.Errorf("no warning of the %s listener: %s", name, stderr)
			}
		}
	}
}

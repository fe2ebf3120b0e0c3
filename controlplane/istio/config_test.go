package istio_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

func yamlFile(text string) istio.File { return istio.File{Name: "x.yaml", Data: []byte(text)} }

func TestListenersAreFoundUnderTheNamesThatANamespaceResolves(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: external, namespace: shop}
spec:
  hosts: [api.example.com, ledger.bank]
  resolution: STATIC
  ports: [{name: http, number: 443, protocol: HTTP}, {name: other, number: 7070, protocol: HTTP}]
`))
	const paymentRoutes = "outbound|8080||payment.shop.svc.cluster.local"
	const ledgerRoutes = "outbound|7070||ledger.bank.svc.cluster.local"
	tests := []struct {
		name, namespace, listener string
		want                      string
	}{
		{"the full name", "", "payment.shop.svc.cluster.local:8080", paymentRoutes},
		{"without the cluster", "", "payment.shop.svc:8080", paymentRoutes},
		{"with the namespace only", "bank", "payment.shop:8080", paymentRoutes},
		{"the short name at home", "shop", "payment:8080", paymentRoutes},
		{"the short name elsewhere", "bank", "payment:8080", ""},
		{"the short name of nobody", "", "payment:8080", ""},
		{"another short name elsewhere", "bank", "ledger:7070", ledgerRoutes},
		{"a host that looks like a short name", "bank", "ledger.bank:7070", "outbound|7070||ledger.bank"},
		{"an external host", "shop", "api.example.com:443", "outbound|443||api.example.com"},
		{"another port", "shop", "payment:8081", ""},
		{"a port that is written oddly", "shop", "payment:08080", ""},
		{"a port that is none", "shop", "payment:http", ""},
		{"no port", "shop", "payment", ""},
		{"a host that nobody knows", "shop", "reviews:8080", ""},
		{"nothing", "shop", "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m, ok := config.Resource(istio.Node{Namespace: test.namespace}, resource.ListenerType, test.listener)
			if ok != (test.want != "") {
				t.Fatalf("found: %v, want %q", ok, test.want)
			}
			if !ok {
				return
			}
			l := m.(*listenerv3.Listener)
			if l.Name != test.listener {
				t.Errorf("name %q, want %q", l.Name, test.listener)
			}
			if got := routeName(t, l); got != test.want {
				t.Errorf("routes %q, want %q", got, test.want)
			}
		})
	}
}

func routeName(t *testing.T, l *listenerv3.Listener) string {
	t.Helper()
	manager, err := l.GetApiListener().GetApiListener().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	return manager.(*hcmv3.HttpConnectionManager).GetRds().GetRouteConfigName()
}

func TestUnknownResourcesAreNotFound(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop))
	for typeURL, name := range map[string]string{
		resource.RouteType:                   "outbound|8080||reviews.shop.svc.cluster.local",
		resource.ClusterType:                 "outbound|8080|v9|payment.shop.svc.cluster.local",
		resource.EndpointType:                "payment",
		resource.SecretType:                  "default",
		"type.googleapis.com/nobody.Knows":   "outbound|8080||payment.shop.svc.cluster.local",
		resource.ListenerType:                inbound + "localhost:8080",
		resource.ListenerType + "v4":         "",
		resource.ExtensionConfigType + "/v3": "x",
	} {
		if m, ok := config.Resource(caller, typeURL, name); ok || m != nil {
			t.Errorf("%s %q: got %v, %v", typeURL, name, m, ok)
		}
	}
	for _, address := range []string{"", ":8080", "0.0.0.0", "0.0.0.0:0", "0.0.0.0:http", "fe80::1%eth0:80", "[fe80::1%eth0]:80", "1.2.3.4:99999"} {
		if _, ok := config.Resource(caller, resource.ListenerType, inbound+address); ok {
			t.Errorf("a listener exists at %q", address)
		}
	}
	if names := config.Names(caller, resource.SecretType); len(names) > 0 {
		t.Errorf("secrets: %v", names)
	}
}

func TestNoDocumentsAreAValidConfiguration(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "---\n", "# nothing here\n---\n# nor here\n---\n", "null\n", "kind: List\n", "kind: List\nitems:\n"} {
		config := parse(t, yamlFile(text))
		for _, typeURL := range typeURLs {
			if names := config.Names(caller, typeURL); len(names) > 0 {
				t.Errorf("%q gives %v", text, names)
			}
		}
		if _, ok := config.Resource(caller, resource.ListenerType, inbound+"0.0.0.0:8080"); !ok {
			t.Errorf("%q: servers have no listener", text)
		}
	}
}

func TestJSONWithTabsAndSnakeCaseIsRead(t *testing.T) {
	t.Parallel()
	config := parse(t, istio.File{Name: "a.json", Data: []byte("{\n\t\"apiVersion\": \"networking.istio.io/v1\",\n\t\"kind\": \"ServiceEntry\",\n" +
		"\t\"metadata\": {\"name\": \"a\"},\n\t\"spec\": {\n\t\t\"hosts\": [\"a.example.com\"], \"resolution\": \"STATIC\",\n" +
		"\t\t\"ports\": [{\"name\": \"http\", \"number\": 80, \"protocol\": \"HTTP\", \"target_port\": 8080}],\n" +
		"\t\t\"endpoints\": [{\"address\": \"10.0.0.1\"}]\n\t}\n}\n")})
	m, ok := config.Resource(caller, resource.EndpointType, "outbound|80||a.example.com")
	if !ok {
		t.Fatal("no endpoints")
	}
	port := m.(*endpointv3.ClusterLoadAssignment).Endpoints[0].LbEndpoints[0].GetEndpoint().GetAddress().GetSocketAddress().GetPortValue()
	if port != 8080 {
		t.Errorf("port %d, want the target port", port)
	}
}

func TestPeerAuthenticationPrecedence(t *testing.T) {
	t.Parallel()
	const mesh = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: mesh, namespace: istio-system}\nspec: {mtls: {mode: STRICT}}\n---\n"
	const namespace = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ns, namespace: shop}\nspec: {mtls: {mode: DISABLE}}\n---\n"
	const unsetNamespace = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ns, namespace: shop}\nspec: {mtls: {mode: UNSET}}\n---\n"
	const workload = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: w, namespace: shop}\nspec: {selector: {matchLabels: {app: payment}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8081: {mode: STRICT}, 8082: {}}}\n---\n"
	payment := istio.Node{Namespace: "shop", Labels: map[string]string{"app": "payment", "version": "v1"}}
	tests := []struct {
		name, yaml string
		node       istio.Node
		address    string
		want       []string
	}{
		{"nothing is PERMISSIVE", "", payment, "0.0.0.0:8080", permissiveChains},
		{"the mesh decides", mesh, payment, "0.0.0.0:8080", strictChains},
		{"the mesh decides for a node without a namespace", mesh, istio.Node{}, "0.0.0.0:8080", strictChains},
		{"the namespace wins over the mesh", mesh + namespace, payment, "0.0.0.0:8080", disabledChains},
		{"another namespace does not", mesh + namespace, istio.Node{Namespace: "bank"}, "0.0.0.0:8080", strictChains},
		{"UNSET inherits", mesh + unsetNamespace, payment, "0.0.0.0:8080", strictChains},
		{"the workload wins over the namespace", mesh + namespace + workload, payment, "0.0.0.0:8080", permissiveChains},
		{"other workloads do not", mesh + namespace + workload, istio.Node{Namespace: "shop", Labels: map[string]string{"app": "web"}}, "0.0.0.0:8080", disabledChains},
		{"one of which nothing is known has the strictest", mesh + namespace + workload, istio.Node{Namespace: "shop"}, "0.0.0.0:8080", permissiveChains},
		{"the port wins over the workload", workload, payment, "0.0.0.0:8081", strictChains},
		{"an UNSET port inherits from the workload", namespace + workload, payment, "0.0.0.0:8082", permissiveChains},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := chains(t, parse(t, yamlFile(test.yaml)), test.node, test.address)
			if !slices.Equal(test.want, got) {
				t.Errorf("chains %v, want %v", got, test.want)
			}
		})
	}
}

func TestANodeWithoutLabelsIsHeldToThePolicyOfItsEndpoints(t *testing.T) {
	t.Parallel()
	const documents = shop + "---\n" + `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: v1, namespace: shop}
spec: {selector: {matchLabels: {version: v1}}, mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: v9, namespace: shop}
spec: {selector: {matchLabels: {version: v9}}, mtls: {mode: DISABLE}, portLevelMtls: {8081: {mode: STRICT}}}
`
	config := parse(t, yamlFile(documents))
	tests := []struct {
		name string
		node istio.Node
		port string
		want []string
	}{
		{"the endpoint's account and port", istio.Node{Namespace: "shop", ServiceAccount: "payment"}, "8080", strictChains},
		{"no account", istio.Node{Namespace: "shop"}, "8080", strictChains},
		{"another account, of which nothing is known there", istio.Node{Namespace: "shop", ServiceAccount: "customer"}, "8080", strictChains},
		{"another port, where nothing is known", istio.Node{Namespace: "shop", ServiceAccount: "payment"}, "8081", strictChains},
		{"another namespace", istio.Node{Namespace: "bank", ServiceAccount: "payment"}, "8080", permissiveChains},
		{"labels of its own", istio.Node{Namespace: "shop", ServiceAccount: "payment", Labels: map[string]string{"version": "v2"}}, "8080", permissiveChains},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := chains(t, config, test.node, "0.0.0.0:"+test.port); !slices.Equal(test.want, got) {
				t.Errorf("chains %v, want %v", got, test.want)
			}
		})
	}
}

func TestANodeWithoutANamespaceIsHeldToTheStrictestPolicy(t *testing.T) {
	t.Parallel()
	const policy = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
	const bankStrict = policy + "metadata: {name: default, namespace: bank}\nspec: {mtls: {mode: STRICT}}\n"
	const versionStrict = policy + "metadata: {name: v1, namespace: shop}\nspec: {selector: {matchLabels: {version: v1}}, portLevelMtls: {8080: {mode: STRICT}}}\n"
	const disabledMesh = policy + "metadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: DISABLE}}\n"
	v1, v2 := map[string]string{"version": "v1"}, map[string]string{"version": "v2"}
	tests := []struct {
		name, yaml string
		labels     map[string]string
		port       string
		want       []string
	}{
		{"no policy", "", nil, "8080", permissiveChains},
		{"a policy of the mesh", disabledMesh, nil, "8080", disabledChains},
		{"a policy of some namespace", disabledMesh + bankStrict, nil, "8080", strictChains},
		{"a policy of some namespace, whatever the labels", bankStrict, v2, "8080", strictChains},
		{"a policy of a workload that it could be", versionStrict, nil, "8080", strictChains},
		{"a policy of its labels", versionStrict, v1, "8080", strictChains},
		{"a policy of other labels", versionStrict, v2, "8080", permissiveChains},
		{"a policy of another port", versionStrict, nil, "8081", permissiveChains},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			config := parse(t, yamlFile(shop+test.yaml))
			if got := chains(t, config, istio.Node{Labels: test.labels}, "0.0.0.0:"+test.port); !slices.Equal(test.want, got) {
				t.Errorf("chains %v, want %v", got, test.want)
			}
		})
	}
}

// chains are what an inbound listener matches and speaks.
func chains(t *testing.T, config *istio.Config, node istio.Node, address string) []string {
	t.Helper()
	m, ok := config.Resource(node, resource.ListenerType, inbound+address)
	if !ok {
		t.Fatal("no listener")
	}
	var got []string
	for _, chain := range m.(*listenerv3.Listener).FilterChains {
		secure := "plain"
		if chain.TransportSocket != nil {
			secure = "mtls"
		}
		got = append(got, chain.GetFilterChainMatch().GetTransportProtocol()+"/"+secure)
	}
	return got
}

var (
	permissiveChains = []string{"tls/mtls", "raw_buffer/plain"}
	strictChains     = []string{"/mtls"}
	disabledChains   = []string{"/plain"}
)

func TestRootNamespaceAndTrustDomainAreOptions(t *testing.T) {
	t.Parallel()
	config, problems := istio.Parse([]istio.File{yamlFile(shop), yamlFile(
		"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: mesh, namespace: root}\nspec: {mtls: {mode: STRICT}}\n")},
		istio.Options{TrustDomain: "example.org", RootNamespace: "root"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	m, _ := config.Resource(caller, resource.ListenerType, inbound+"0.0.0.0:8080")
	if chains := m.(*listenerv3.Listener).FilterChains; len(chains) != 1 || chains[0].TransportSocket == nil {
		t.Errorf("the policy of the root namespace is not in force: %v", chains)
	}
	want := []string{"spiffe://example.org/ns/shop/sa/payment"}
	if got := peerNames(t, config, "outbound|8080||payment.shop.svc.cluster.local"); !slices.Equal(want, got) {
		t.Errorf("SANs %v, want %v", got, want)
	}
}

// peerNames are the names that clients of a cluster accept; nil is plaintext.
func peerNames(t *testing.T, config *istio.Config, cluster string) []string {
	t.Helper()
	m, ok := config.Resource(caller, resource.ClusterType, cluster)
	if !ok {
		t.Fatalf("no cluster %q", cluster)
	}
	socket := m.(*clusterv3.Cluster).GetTransportSocket()
	if socket == nil {
		return nil
	}
	context := new(tlsv3.UpstreamTlsContext)
	if err := socket.GetTypedConfig().UnmarshalTo(context); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, san := range context.GetCommonTlsContext().GetValidationContext().GetMatchSubjectAltNames() {
		names = append(names, san.GetExact())
	}
	return names
}

func TestMutualTLSOfAClusterFollowsItsEndpointsAndRules(t *testing.T) {
	t.Parallel()
	const head = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: shop}
spec:
  hosts: [a.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: http, number: 80, protocol: HTTP}]
`
	const rule = `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec:
  host: a
`
	const name = "outbound|80||a.shop.svc.cluster.local"
	const a, b = "spiffe://cluster.local/ns/shop/sa/a", "spiffe://cluster.local/ns/shop/sa/b"
	tests := []struct {
		name, yaml, cluster string
		want                []string
	}{
		{"no service account", head + "  endpoints: [{address: 10.0.0.1}]\n", name, nil},
		{"service accounts", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: b}, {address: 10.0.0.2, serviceAccount: a}, {address: 10.0.0.3, serviceAccount: a}]\n", name, []string{a, b}},
		{"the label switches it off", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: a, labels: {security.istio.io/tlsMode: disabled}}]\n", name, nil},
		{"names of the service win", head + "  subjectAltNames: [x.example.com]\n  endpoints: [{address: 10.0.0.1, serviceAccount: a}]\n", name, []string{"x.example.com"}},
		{"names of the rule win over them", head + "  subjectAltNames: [x.example.com]\n  endpoints: [{address: 10.0.0.1, serviceAccount: a}]\n" + rule + "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: [y.example.com]}}\n", name, []string{"y.example.com"}},
		{"a rule switches it off", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: a}]\n" + rule + "  trafficPolicy: {tls: {mode: DISABLE}}\n", name, nil},
		{"a rule decides about a mixture", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: a}, {address: 10.0.0.2}]\n" + rule + "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n", name, []string{a}},
		{"a subset without endpoints does as its service", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: a}]\n" + rule + "  subsets: [{name: v1, labels: {version: v1}}]\n", "outbound|80|v1|a.shop.svc.cluster.local", []string{a}},
		{"PeerAuthentication switches it off for clients", head + "  endpoints: [{address: 10.0.0.1, serviceAccount: a, labels: {app: a}}]\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\nspec: {selector: {matchLabels: {app: a}}, portLevelMtls: {80: {mode: DISABLE}}}\n", name, nil},
		{"a service without endpoints accepts nobody by itself", head, name, []string{"spiffe://cluster.local/ns/shop/sa/"}},
		{"a subset of a service without endpoints neither", head + rule + "  subsets: [{name: v1, labels: {version: v1}}]\n", "outbound|80|v1|a.shop.svc.cluster.local", []string{"spiffe://cluster.local/ns/shop/sa/"}},
		{"a service without endpoints can be plaintext by a rule", head + rule + "  trafficPolicy: {tls: {mode: DISABLE}}\n", name, nil},
		{"a service without endpoints that has names accepts those", head + "  subjectAltNames: [x.example.com]\n", name, []string{"x.example.com"}},
		{"an external service without endpoints is plaintext", strings.Replace(head, "MESH_INTERNAL", "MESH_EXTERNAL", 1), name, nil},
		{"a service without endpoints accepts nobody with a rule", head + rule + "  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}\n", name, []string{"spiffe://cluster.local/ns/shop/sa/"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := peerNames(t, parse(t, yamlFile(test.yaml)), test.cluster)
			if !slices.Equal(test.want, got) || (test.want == nil) != (got == nil) {
				t.Errorf("SANs %q, want %q", got, test.want)
			}
		})
	}
}

func TestAPortWithoutAMatchingRouteGetsTheDefaultRoute(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop), yamlFile(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: http-only
    match: [{port: 8080}]
    route: [{destination: {host: ledger.bank.svc.cluster.local, port: {number: 7070}}}]
`))
	for port, want := range map[string]string{
		"8080": "http-only outbound|7070||ledger.bank.svc.cluster.local",
		"9090": "default outbound|9090||payment.shop.svc.cluster.local",
	} {
		m, _ := config.Resource(caller, resource.RouteType, "outbound|"+port+"||payment.shop.svc.cluster.local")
		route := m.(*routev3.RouteConfiguration).VirtualHosts[0].Routes[0]
		if got := route.Name + " " + route.GetRoute().GetCluster(); got != want {
			t.Errorf("port %s: %q, want %q", port, got, want)
		}
	}
}

func TestRoutesOfTwoNamespacesShareWhatIsTheSame(t *testing.T) {
	t.Parallel()
	config := parse(t, yamlFile(shop))
	const name = "outbound|8080||payment.shop.svc.cluster.local"
	near, _ := config.Resource(istio.Node{Namespace: "shop"}, resource.RouteType, name)
	far, _ := config.Resource(istio.Node{Namespace: "bank"}, resource.RouteType, name)
	if proto.Equal(near, far) {
		t.Fatal("the namespace makes no difference")
	}
	a, b := near.(*routev3.RouteConfiguration).VirtualHosts[0], far.(*routev3.RouteConfiguration).VirtualHosts[0]
	if a.Routes[0] != b.Routes[0] {
		t.Error("the routes were translated twice")
	}
}

func TestReadDirReadsConfigurationAndSkipsTheRest(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{}
	for _, name := range []string{
		"b.yaml", "a/c.yml", "a/d.YAML", "a/b.json", "notes.txt", ".hidden.yaml", "..data/d.yaml", "a/.git/e.yaml", "yaml", "a.yaml/f.txt", "a.yaml/g.yaml",
	} {
		tree[name] = &fstest.MapFile{Data: []byte(name)}
	}
	files, err := istio.ReadDir(tree)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Name)
		if string(f.Data) != f.Name {
			t.Errorf("%s holds %q", f.Name, f.Data)
		}
	}
	if want := []string{"a/b.json", "a/c.yml", "a/d.YAML", "a.yaml/g.yaml", "b.yaml"}; !slices.Equal(want, got) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestReadDirFollowsTheLinksOfAConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..2026", "a.yaml"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"..data": "..2026", "a.yaml": filepath.Join("..data", "a.yaml")} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := istio.ReadDir(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name != "a.yaml" || string(files[0].Data) != "x" {
		t.Errorf("files %v", files)
	}
}

func TestReadDirReportsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	_, err := istio.ReadDir(os.DirFS(filepath.Join(t.TempDir(), "missing")))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want fs.ErrNotExist", err)
	}
}

func TestReadDirRefusesWhatIsNoRegularFile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, want string
		file       *fstest.MapFile
	}{
		{"a pipe", `"x.yaml" is not a regular file`, &fstest.MapFile{Mode: fs.ModeNamedPipe}},
		{"a device", `"x.yaml" is not a regular file`, &fstest.MapFile{Mode: fs.ModeDevice | fs.ModeCharDevice}},
		{"a socket", `"x.yaml" is not a regular file`, &fstest.MapFile{Mode: fs.ModeSocket}},
		{"a huge file", `"x.yaml" has more than 33554432 bytes: split it`, &fstest.MapFile{Data: make([]byte, 32<<20+1)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := istio.ReadDir(fstest.MapFS{"x.yaml": test.file})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

func TestReadDirRefusesALinkToADevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(os.DevNull, filepath.Join(dir, "x.yaml")); err != nil {
		t.Skip(err)
	}
	if _, err := istio.ReadDir(os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("error %v", err)
	}
}

func BenchmarkParse(b *testing.B) {
	files, err := istio.ReadDir(os.DirFS(filepath.Join("testdata", "shop")))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, problems := istio.Parse(files, istio.Options{}); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}

func BenchmarkResource(b *testing.B) {
	config := parse(b, yamlFile(shop))
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := config.Resource(caller, resource.ListenerType, "payment:8080"); !ok {
			b.Fatal("no listener")
		}
	}
}

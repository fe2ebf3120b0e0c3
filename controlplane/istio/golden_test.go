package istio_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	resource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// caller is the node that golden files are made for.
var caller = istio.Node{
	ID: "sidecar~127.0.0.1~customer.shop~shop.svc.cluster.local", Namespace: "shop",
	ServiceAccount: "customer", Labels: map[string]string{"app": "customer"},
}

const inbound = "xds.istio.io/grpc/lds/inbound/"

// typeURLs are all types, in the order of the golden files.
var typeURLs = []string{
	resource.ListenerType, resource.RouteType, resource.ClusterType, resource.EndpointType,
}

// goldenCase is one YAML file and the resources that it gives.
type goldenCase struct {
	node istio.Node
	// names are the resources to show by type; nil shows all that have a name.
	names map[string][]string
}

func TestGolden_YAMLBecomesTheseResources(t *testing.T) {
	t.Parallel()
	routes := map[string][]string{resource.RouteType: nil}
	clusters := map[string][]string{resource.ClusterType: nil}
	endpoints := map[string][]string{resource.EndpointType: nil}
	payment := istio.Node{Namespace: "shop", Labels: map[string]string{"app": "payment"}}
	cases := map[string]goldenCase{
		"service":         {node: caller},
		"virtualservice":  {node: caller, names: routes},
		"match":           {node: caller, names: routes},
		"answers":         {node: caller, names: routes},
		"mirror":          {node: caller, names: routes},
		"httproute":       {node: caller, names: map[string][]string{resource.RouteType: {paymentRoutes}}},
		"grpcroute":       {node: caller, names: routes},
		"far":             {node: istio.Node{Namespace: "bank"}, names: routes},
		"destinationrule": {node: caller, names: clusters},
		"workloads":       {node: caller, names: endpoints},
		"peerauthentication": {node: payment, names: map[string][]string{resource.ListenerType: {
			inbound + "0.0.0.0:8080", inbound + "[::]:8081", inbound + "10.0.0.1:8082",
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := filepath.Join("testdata", "golden", name+".yaml")
			data, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			config := parse(t, istio.File{Name: source, Data: data})
			compareGolden(t, filepath.Join("testdata", "golden", name+".json"), dump(t, config, c))
		})
	}
}

func TestGolden_ShopSample(t *testing.T) {
	t.Parallel()
	files, err := istio.ReadDir(os.DirFS(filepath.Join("testdata", "shop")))
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, filepath.Join("testdata", "golden", "shop.json"), dump(t, parse(t, files...), goldenCase{node: caller}))
}

func parse(t testing.TB, files ...istio.File) *istio.Config {
	t.Helper()
	config, problems := istio.Parse(files, istio.Options{})
	for _, p := range problems {
		t.Error(p)
	}
	if len(problems) > 0 {
		t.FailNow()
	}
	return config
}

// dump shows resources as indented JSON, which protojson alone does not keep
// stable.
func dump(t testing.TB, config *istio.Config, c goldenCase) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, typeURL := range typeURLs {
		names, ok := c.names[typeURL]
		if c.names != nil && !ok {
			continue
		}
		if names == nil {
			names = config.Names(c.node, typeURL)
		}
		for _, name := range names {
			m, ok := config.Resource(c.node, typeURL, name)
			if !ok {
				t.Fatalf("no %s %q", typeURL, name)
			}
			raw, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString("// " + typeURL[strings.LastIndexByte(typeURL, '.')+1:] + "\n")
			if err := json.Indent(&out, raw, "", "  "); err != nil {
				t.Fatal(err)
			}
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
}

func TestEveryResourceOfTheTestDataIsValidForEnvoy(t *testing.T) {
	t.Parallel()
	sources, err := filepath.Glob(filepath.Join("testdata", "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		data, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		config, problems := istio.Parse([]istio.File{{Name: source, Data: data}}, istio.Options{})
		if len(problems) > 0 {
			continue // traffic.yaml is about services.yaml, which the sample's own test reads too
		}
		checkResources(t, config)
	}
	files, err := istio.ReadDir(os.DirFS(filepath.Join("testdata", "shop")))
	if err != nil {
		t.Fatal(err)
	}
	checkResources(t, parse(t, files...))
}

func TestParsingTwiceGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	files, err := istio.ReadDir(os.DirFS(filepath.Join("testdata", "shop")))
	if err != nil {
		t.Fatal(err)
	}
	first := wire(t, parse(t, files...))
	for range 20 {
		if !slices.Equal(first, wire(t, parse(t, files...))) {
			t.Fatal("the same documents gave other bytes")
		}
	}
}

// wire is every resource of the caller, marshalled.
func wire(t testing.TB, config *istio.Config) []string {
	t.Helper()
	var out []string
	for _, typeURL := range typeURLs {
		for _, name := range config.Names(caller, typeURL) {
			m, _ := config.Resource(caller, typeURL, name)
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, typeURL+" "+name+" "+string(raw))
		}
	}
	return out
}

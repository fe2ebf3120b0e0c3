package istio_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// shop is a valid service that the tables of problems add to.
const shop = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {name: http, number: 8080, protocol: HTTP}
  - {name: grpc, number: 9090, protocol: GRPC}
  endpoints:
  - {address: 10.0.0.1, serviceAccount: payment, labels: {version: v1}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ledger, namespace: bank}
spec:
  hosts: [ledger.bank.svc.cluster.local]
  resolution: STATIC
  ports: [{name: http, number: 7070, protocol: HTTP}]
`

type problemCase struct {
	name string
	yaml string
	want []string
}

func TestProblems(t *testing.T) {
	t.Parallel()
	tables := map[string][]problemCase{
		"document":             documentProblems,
		"ServiceEntry":         serviceEntryProblems,
		"DNS":                  dnsProblems,
		"mutual TLS":           mutualTLSProblems,
		"DestinationRule":      destinationRuleProblems,
		"annotations":          annotationProblems,
		"VirtualService":       virtualServiceProblems,
		"HTTP route":           routeProblems,
		"PeerAuthentication":   peerAuthenticationProblems,
		"AuthorizationPolicy":  authorizationProblems,
		"Gateway API":          gatewayProblems,
		"balancer annotations": balancerAnnotationProblems,
		"mirrors":              problemsWithMirrors,
		"mesh configuration":   meshProblems,
		"locality":             localityProblems,
		"first steps":          newcomerProblems,
		"other names":          externalNameProblems,
		"not enforced":         unenforcedProblems,
	}
	for name, table := range tables {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range table {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					checkProblems(t, c)
				})
			}
		})
	}
}

func checkProblems(t *testing.T, c problemCase) {
	t.Helper()
	config, problems := istio.Parse([]istio.File{
		{Name: "shop.yaml", Data: []byte(shop)}, {Name: "x.yaml", Data: []byte(strings.TrimPrefix(c.yaml, "\n"))},
	}, istio.Options{})
	got := make([]string, len(problems))
	for i, p := range problems {
		got[i] = p.String()
	}
	if diff := cmp.Diff(c.want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if (config == nil) != (len(problems) > 0) {
		t.Errorf("config is nil: %v, with %d problems", config == nil, len(problems))
	}
}

func TestProblemsComeInTheOrderOfFilesAndLines(t *testing.T) {
	t.Parallel()
	files := []istio.File{
		{Name: "z.yaml", Data: []byte("kind: Ingress\n---\nkind: Gateway\n")},
		{Name: "a.yaml", Data: []byte("kind: Sidecar\n")},
	}
	_, problems := istio.Parse(files, istio.Options{})
	var got []string
	for _, p := range problems {
		got = append(got, p.Object)
	}
	if want := []string{"Ingress", "Gateway", "Sidecar"}; !slices.Equal(want, got) {
		t.Errorf("want %v, got %v", want, got)
	}
}

func TestProblemStringLeavesOutWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	p := istio.Problem{File: "a.yaml", Line: 3, Message: "bad"}
	if want, got := "a.yaml:3: bad", p.String(); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
	p = istio.Problem{File: "a.yaml", Line: 3, Column: 5, Object: "ServiceEntry shop/payment", Field: "spec.hosts[0]", Message: "bad"}
	if want, got := "a.yaml:3:5: ServiceEntry shop/payment: spec.hosts[0]: bad", p.String(); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
	p = istio.Problem{File: "conf", Message: "is gone"}
	if want, got := "conf: is gone", p.String(); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
}

func TestProblemStringIsOneLineWithoutControlCharacters(t *testing.T) {
	t.Parallel()
	p := istio.Problem{File: "a\nb.yaml", Line: 3, Object: "ServiceEntry shop/\x1b[31m", Message: "größer\u2028\u00a0\x00"}
	if want, got := `a\nb.yaml:3: ServiceEntry shop/\x1b[31m: größer\u2028\u00a0\x00`, p.String(); want != got {
		t.Errorf("want %q, got %q", want, got)
	}
}

// What is in a file that cannot be read is missing elsewhere: that is no problem of
// those who refer to it.
func TestAFileThatCannotBeReadHasOneProblem(t *testing.T) {
	t.Parallel()
	broken := strings.Replace(shop, "endpoints:", "endpoints: [", 1)
	rules := newcomerHead + "  - route: [{destination: {host: payment, subset: v1}}]\n---\n" +
		"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\nspec: {host: payment}\n"
	_, problems := istio.Parse([]istio.File{{Name: "shop.yaml", Data: []byte(broken)}, {Name: "x.yaml", Data: []byte(rules)}}, istio.Options{})
	if len(problems) != 1 || problems[0].File != "shop.yaml" {
		t.Errorf("got %v", problems)
	}
}

package meshtest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/mesh/meshtest"
)

func TestMistakesFailTheTestAndSayWhere(t *testing.T) {
	t.Parallel()
	handler := http.NotFoundHandler()
	tests := []struct {
		name string
		run  func(w *meshtest.World)
		want string
	}{
		{
			"YAML that is none", func(w *meshtest.World) { w.Apply("kind: VirtualService\n  spec: {}\n") },
			"config.yaml:2: not valid YAML",
		},
		{
			"a field that does not exist", func(w *meshtest.World) {
				w.Service("payment.shop")
				w.Apply(strings.Replace(retryYAML, "retries:", "retry:", 1))
			},
			`config.yaml:9:5: VirtualService shop/payment: spec.http[0].retry: `,
		},
		{
			"a service that does not exist", func(w *meshtest.World) { w.Apply(retryYAML) },
			`config.yaml:6:11: VirtualService shop/payment: spec.hosts[0]: `,
		},
		{
			"a file with a name", func(w *meshtest.World) {
				files, _ := istio.ReadDir(fstest.MapFS{"shop/payment.yaml": {Data: []byte(retryYAML)}})
				w.ApplyFiles(files...)
			},
			`shop/payment.yaml:6:11: `,
		},
		{
			"a second ServiceEntry for a service", func(w *meshtest.World) {
				w.Service("payment.shop")
				w.Apply("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: mine, namespace: shop}\n" +
					"spec:\n  hosts: [payment.shop.svc.cluster.local]\n  resolution: STATIC\n" +
					"  ports: [{number: 80, name: http, protocol: HTTP}]\n")
			},
			`"payment.shop.svc.cluster.local" is already a host of ServiceEntry shop/payment`,
		},
		{
			"an option that is nil", func(w *meshtest.World) { w.Service("payment.shop", meshtest.Version("v1"), nil) },
			`meshtest: service "payment.shop": option 1 is nil`,
		},
		{
			"a status below 100", func(w *meshtest.World) { w.Service("payment.shop").Inject(1, meshtest.Fault{Status: 42}) },
			"inject the status 42: HTTP answers have 200 to 999",
		},
		{
			"a status that is no answer", func(w *meshtest.World) { w.Service("payment.shop").Inject(1, meshtest.Fault{Status: 101}) },
			"inject the status 101: HTTP answers have 200 to 999",
		},
		{
			"a status of four digits", func(w *meshtest.World) { w.Service("payment.shop").Inject(1, meshtest.Fault{Status: 9999}) },
			"inject the status 9999: HTTP answers have 200 to 999",
		},
		{
			"a service without a namespace", func(w *meshtest.World) { w.Service("payment") },
			`meshtest: service "payment": the name is not "NAME.NAMESPACE", such as "payment.shop"`,
		},
		{
			"a service of elsewhere", func(w *meshtest.World) { w.Service("api.example.com") },
			`meshtest: service "api.example.com": the name is not "NAME.NAMESPACE"`,
		},
		{
			"a name in upper case", func(w *meshtest.World) { w.Service("Payment.shop") },
			`meshtest: service "Payment.shop": "Payment" is not a name: use lower case letters, digits and '-'`,
		},
		{
			"a workload without a namespace", func(w *meshtest.World) { w.Workload("customer") },
			`meshtest: workload "customer": the name is not "NAME.NAMESPACE"`,
		},
		{
			"a workload in upper case", func(w *meshtest.World) { w.Workload("customer.Shop") },
			`meshtest: workload "customer.Shop": "Shop" is not a name`,
		},
		{
			"a port that is none", func(w *meshtest.World) { w.Service("payment.shop", meshtest.HTTP(0, handler)) },
			`meshtest: service "payment.shop": 0 is not a port: use 1..65535`,
		},
		{
			"a port that is served twice", func(w *meshtest.World) {
				w.Service("payment.shop", meshtest.HTTP(80, handler), meshtest.GRPC(80, register("a")))
			},
			"port 80 is served twice",
		},
		{
			"no handler", func(w *meshtest.World) { w.Service("payment.shop", meshtest.HTTP(80, nil)) },
			"port 80: the handler is nil",
		},
		{
			"instances that differ", func(w *meshtest.World) {
				w.Service("payment.shop", meshtest.HTTP(80, handler))
				w.Service("payment.shop", meshtest.HTTP(80, handler), meshtest.GRPC(9090, register("a")))
			},
			"an instance serves [HTTP 80 GRPC 9090] and the others serve [HTTP 80]: all instances of a service serve the same ports",
		},
		{
			"a locality that is none", func(w *meshtest.World) { w.Service("payment.shop", meshtest.Locality("a/b/c/d")) },
			`"a/b/c/d" is not a locality: write region/zone/subzone`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				reached := false
				failure := failureOf(func(tb meshtest.TB) {
					test.run(meshtest.New(tb))
					reached = true
				})
				if !strings.Contains(failure, test.want) || reached {
					t.Errorf("got %q, want %q; went on: %t", failure, test.want, reached)
				}
			})
		})
	}
}

func TestAnotherInstanceKeepsTheConfigurationOfTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		w.Apply(retryYAML)
		w.Service("payment.shop", meshtest.Version("v2")).Kill()
		payment.FailNext(1)
		client := w.Workload("customer.shop").HTTPClient()
		if code, _ := get(t, client, "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("another instance made the test's configuration go: got %d", code)
		}
	})
}

// Every change is a few questions to the control plane; a client that answers
// repetitions slowly must not take them for such.
func TestManyChangesTakeNoTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop")
		client := w.Workload("customer.shop").HTTPClient()
		start := time.Now()
		for i := range 30 {
			w.Apply(map[bool]string{true: retryYAML}[i%2 == 0])
			get(t, client, "http://payment.shop/")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// rejectedYAML is what the control plane could translate and no client would take.
var rejectedYAML = strings.Replace(retryYAML, "retries:", `match: [{uri: {regex: "/(a{1,900})b{1,900}c{1,900}"}}]
    retries:`, 1)

// unknownPolicyYAML is what only a client knows that it cannot do.
const unknownPolicyYAML = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop, annotations: {inboard.balancer: "{policy: mine}"}}
spec: {host: payment}
`

func TestWhatClientsRejectFailsTheTest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, yaml, want string }{
		{"before the control plane serves it", rejectedYAML, "config.yaml:9:13: VirtualService shop/payment: spec.http[0].match[0]: clients refuse the translation: match.safe_regex: regular expression"},
		{"when a workload gets it", unknownPolicyYAML, `meshtest: workload "customer.shop" rejects the configuration: Cluster "outbound|80||payment.shop.svc.cluster.local": `},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				failure := failureOf(func(tb meshtest.TB) {
					w := meshtest.New(tb)
					w.Service("payment.shop")
					w.Apply(c.yaml)
					if resp, err := w.Workload("customer.shop").HTTPClient().Get("http://payment.shop/"); err == nil {
						resp.Body.Close()
					}
				})
				if !strings.Contains(failure, c.want) {
					t.Errorf("got %q, want %q", failure, c.want)
				}
			})
		})
	}
}

func TestARejectionCanBeAsserted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		client := w.Workload("customer.shop").HTTPClient()
		w.Apply(retryYAML)
		err := w.Try(rejectedYAML)
		if invalid, ok := errors.AsType[*controlplane.InvalidConfigError](err); !ok || len(invalid.Problems) != 1 {
			t.Errorf("got %v", err)
		}
		payment.FailNext(1)
		if code, _ := get(t, client, "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("what was refused has replaced the configuration: got %d", code)
		}
		for n := range 2 { // the second time nothing is new to the workload
			if err := w.Try(unknownPolicyYAML); err == nil || strings.Count(err.Error(), `workload "customer.shop" rejects it: Cluster`) != 1 {
				t.Errorf("attempt %d: got %v", n+1, err)
			}
		}
		if resp, err := w.Workload("other.shop").HTTPClient().Get("http://payment.shop/"); err == nil {
			resp.Body.Close()
			t.Error("who has no configuration has an answer")
		}
		if err := w.Try(retryYAML); err != nil {
			t.Error(err)
		}
		if code, _ := get(t, client, "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	})
}

func TestOtherCallsThanWantedFailTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failure := failureOf(func(tb meshtest.TB) {
			w := meshtest.New(tb)
			w.Service("payment.shop")
			client := w.Workload("customer.shop").HTTPClient()
			get(t, client, "http://payment.shop/a")
			w.WantCalls("customer.shop GET payment.shop/a: payment 200")
			w.WantCalls()
			get(t, client, "http://payment.shop/b")
			w.WantCalls("customer.shop GET payment.shop/b: payment 503, payment 200")
		})
		want := "meshtest: the calls were\n\tcustomer.shop GET payment.shop/b: payment 200\nand not\n\tcustomer.shop GET payment.shop/b: payment 503, payment 200"
		if failure != want {
			t.Errorf("got %q, want %q", failure, want)
		}
	})
}

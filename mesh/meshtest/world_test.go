package meshtest_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
)

const retryYAML = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - name: charge
    retries: {attempts: 2, perTryTimeout: 1s, retryOn: "5xx,connect-failure,unavailable"}
    route: [{destination: {host: payment}}]
`

// everywhere runs a test in a bubble and outside of one.
func everywhere(t *testing.T, f func(t *testing.T)) {
	t.Run("in a bubble", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, f)
	})
	t.Run("in real time", func(t *testing.T) {
		t.Parallel()
		f(t)
	})
}

// get returns the status and the body, or the error as text.
func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(body)
}

// lines are the calls of a world, a line each.
func lines(w *meshtest.World) []string {
	var out []string
	for _, c := range w.Calls() {
		out = append(out, c.String())
	}
	return out
}

func wantLines(t *testing.T, w *meshtest.World, want ...string) {
	t.Helper()
	if got := lines(w); !slices.Equal(got, want) {
		t.Errorf("got calls\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestACallReachesAHandlerWithTheIdentityOfItsCaller(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.HTTP(8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _ := mesh.PeerID(r.Context())
			_, _ = io.WriteString(w, id.String()+" "+r.URL.Path)
		})))
		client := w.Workload("customer.shop").HTTPClient()
		for _, host := range []string{"payment", "payment.shop", "payment.shop.svc.cluster.local"} {
			code, body := get(t, client, "http://"+host+":8080/charge")
			if code != http.StatusOK || body != "spiffe://cluster.local/ns/shop/sa/customer /charge" {
				t.Errorf("%s: got %d %q", host, code, body)
			}
		}
	})
}

func TestFailuresAreRetriedAsTheConfigurationSays(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		w.Apply(retryYAML)
		client := w.Workload("customer.shop").HTTPClient()
		payment.FailNext(2)
		if code, body := get(t, client, "http://payment.shop/charge"); code != http.StatusOK || body != "payment" {
			t.Errorf("got %d %q", code, body)
		}
		payment.FailNext(5)
		if code, _ := get(t, client, "http://payment.shop/charge"); code != http.StatusServiceUnavailable {
			t.Errorf("got %d", code)
		}
		wantLines(t, w,
			"customer.shop GET payment.shop/charge: payment 503, payment 503, payment 200",
			"customer.shop GET payment.shop/charge: payment 503, payment 503, payment 503")
		if n := payment.Requests(); n != 6 {
			t.Errorf("%d requests arrived, want 6", n)
		}
		call := w.Calls()[0]
		if call.Route != "charge" || call.Cluster != "outbound|80||payment.shop.svc.cluster.local" ||
			call.Outcome.Kind != outcome.Response || call.Outcome.Status != http.StatusOK ||
			len(call.Attempts) != 3 || call.Attempts[0].Endpoint != "10.0.0.1:80" || call.End.Before(call.Start) {
			t.Errorf("got %+v", call)
		}
		w.ResetCalls()
		wantLines(t, w)
	})
}

func TestTheNextCallSeesAChange(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Version("v1"))
		w.Service("payment.shop", meshtest.Version("v2"))
		client := w.Workload("customer.shop").HTTPClient()
		get(t, client, "http://payment.shop/")
		for _, version := range []string{"v1", "v2", "v1", "v3", "v2"} {
			if version == "v3" {
				w.Service("payment.shop", meshtest.Version("v3"))
			}
			w.Apply(subsets("v1", "v2", version) + `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http: [{route: [{destination: {host: payment, subset: ` + version + `}}]}]
`)
			for range 5 {
				if _, body := get(t, client, "http://payment.shop/"); body != "payment-"+version {
					t.Fatalf("%s answered after the change to %s", body, version)
				}
			}
		}
	})
}

// subsets is a DestinationRule with a subset for each version.
func subsets(versions ...string) string {
	slices.Sort(versions)
	var yaml strings.Builder
	yaml.WriteString("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: payment, namespace: shop}\n" +
		"spec:\n  host: payment\n  subsets:\n")
	for _, version := range slices.Compact(versions) {
		yaml.WriteString("  - {name: " + version + ", labels: {version: " + version + "}}\n")
	}
	return yaml.String() + "---\n"
}

func TestAKilledInstanceIsAvoidedUntilItIsRestarted(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		a, b := w.Service("payment.shop", meshtest.Version("a")), w.Service("payment.shop", meshtest.Version("b"))
		w.Apply(retryYAML)
		client := w.Workload("customer.shop").HTTPClient()
		for range 4 {
			get(t, client, "http://payment.shop/")
		}
		a.Kill()
		a.Kill()
		for range 10 {
			if code, body := get(t, client, "http://payment.shop/"); code != http.StatusOK || body != "payment-b" {
				t.Errorf("got %d %q", code, body)
			}
		}
		b.Kill()
		if code, text := get(t, client, "http://payment.shop/"); code == http.StatusOK || !strings.Contains(text, "connection refused") {
			t.Errorf("got %d %q", code, text)
		}
		a.Restart()
		a.Restart()
		if _, body := get(t, client, "http://payment.shop/"); body != "payment-a" {
			t.Errorf("got %q", body)
		}
	})
}

func TestAHandlerMayKillItsInstance(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		var payment *meshtest.Instance
		payment = w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			payment.Kill()
		})))
		w.Apply(strings.Replace(retryYAML, "5xx,", "reset,", 1))
		if code, text := get(t, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/"); code != 0 {
			t.Errorf("got %d %q", code, text)
		}
		if calls := w.Calls(); len(calls) != 1 || len(calls[0].Attempts) != 3 || calls[0].Attempts[0].Outcome.Kind != outcome.Reset {
			t.Errorf("got %v", lines(w))
		}
	})
}

func TestAPerTryTimeoutIsExactInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		slow := w.Service("payment.shop")
		w.Apply(retryYAML)
		client := w.Workload("customer.shop").HTTPClient()
		get(t, client, "http://payment.shop/")
		w.ResetCalls()
		slow.Inject(1, meshtest.Fault{Delay: time.Hour})
		if code, _ := get(t, client, "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("got %d", code)
		}
		call := w.Calls()[0]
		if first := call.Attempts[0]; first.Outcome.Kind != outcome.PerTryTimeout || first.End.Sub(first.Start) != time.Second {
			t.Errorf("the first attempt took %v: %v", first.End.Sub(first.Start), first)
		}
		slow.Delay(500 * time.Millisecond)
		start := time.Now()
		get(t, client, "http://payment.shop/")
		if took := time.Since(start); took != 500*time.Millisecond {
			t.Errorf("a delay of 500ms took %v", took)
		}
		slow.Inject(0, meshtest.Fault{})
		start = time.Now()
		get(t, client, "http://payment.shop/")
		if took := time.Since(start); took != 0 {
			t.Errorf("without a delay the call took %v", took)
		}
	})
}

func TestHoursMayPassInABubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		client := w.Workload("customer.shop").HTTPClient()
		get(t, client, "http://payment.shop/")
		time.Sleep(5 * time.Hour)
		payment.Kill()
		payment.Restart()
		if code, body := get(t, client, "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("got %d %q", code, body)
		}
	})
}

type pay struct {
	grpc_testing.UnimplementedTestServiceServer
	name string
}

func (p *pay) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	return &grpc_testing.SimpleResponse{Username: p.name}, nil
}

func (p *pay) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, stream grpc_testing.TestService_StreamingOutputCallServer) error {
	return stream.Send(&grpc_testing.StreamingOutputCallResponse{})
}

func register(name string) func(grpc.ServiceRegistrar) {
	return func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, &pay{name: name}) }
}

func TestGRPCIsRoutedAndRetried(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop", meshtest.GRPC(9090, register("a")), meshtest.HTTP(80, http.NotFoundHandler()))
		w.Apply(retryYAML)
		conn, err := grpc.NewClient("mesh:///payment.shop:9090", w.Workload("customer.shop").DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client := grpc_testing.NewTestServiceClient(conn)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		payment.FailNext(1)
		reply, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
		if err != nil || reply.GetUsername() != "a" {
			t.Errorf("got %v, %v", reply, err)
		}
		payment.Inject(-1, meshtest.Fault{Code: codes.PermissionDenied})
		if _, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
		wantLines(t, w,
			"customer.shop payment.shop:9090/grpc.testing.TestService/UnaryCall: payment Unavailable, payment OK",
			"customer.shop payment.shop:9090/grpc.testing.TestService/UnaryCall: payment PermissionDenied",
			"customer.shop payment.shop:9090/grpc.testing.TestService/StreamingOutputCall: payment PermissionDenied")
		payment.Kill()
		if _, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		payment.Inject(0, meshtest.Fault{})
		payment.Restart()
		if _, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
	})
}

func TestStrictRefusesWhoIsOutsideTheMesh(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		payment := w.Service("payment.shop")
		transport := &http.Transport{DialContext: w.DialContext, DisableKeepAlives: true}
		defer transport.CloseIdleConnections()
		outside := &http.Client{Transport: transport}
		if code, body := get(t, outside, "http://payment.shop/"); code != http.StatusOK || body != "payment" {
			t.Errorf("PERMISSIVE: got %d %q", code, body)
		}
		w.Apply("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n")
		if code, body := get(t, outside, "http://payment.shop/"); code != 0 {
			t.Errorf("STRICT: got %d %q", code, body)
		}
		if code, body := get(t, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/"); code != http.StatusOK {
			t.Errorf("STRICT: a workload got %d %q", code, body)
		}
		if _, text := get(t, outside, "http://patment.shop/"); !strings.Contains(text, `"patment.shop" is no service of this world: it has payment.shop`) {
			t.Errorf("got %q", text)
		}
		payment.Kill()
		if _, text := get(t, outside, "http://payment.shop/"); !strings.Contains(text, `no instance of "payment.shop" is running`) {
			t.Errorf("got %q", text)
		}
	})
}

func TestAnUnknownHostIsRefused(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		client := w.Workload("customer.shop").HTTPClient()
		for _, url := range []string{"http://patment.shop/", "http://example.com/", "https://example.com/"} {
			if code, text := get(t, client, url); code != 0 || !strings.Contains(text, "mesh: target") {
				t.Errorf("%s: got %d %q", url, code, text)
			}
		}
	})
}

func TestServicesCallServices(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		w := meshtest.New(t)
		ledger := w.Service("ledger.bank", meshtest.Locality("eu/a"), meshtest.Labels(map[string]string{"tier": "gold"}))
		payment := w.Workload("payment.shop").HTTPClient()
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			code, body := get(t, payment, "http://ledger.bank/")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		})))
		if code, body := get(t, w.Workload("customer.shop").HTTPClient(), "http://payment.shop/"); code != http.StatusOK || body != "ledger" {
			t.Errorf("got %d %q", code, body)
		}
		wantLines(t, w, "payment.shop GET ledger.bank/: ledger 200", "customer.shop GET payment.shop/: payment 200")
		if ledger.Name() != "ledger" || ledger.Requests() != 1 {
			t.Errorf("%s got %d requests", ledger.Name(), ledger.Requests())
		}
	})
}

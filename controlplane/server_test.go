package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// broken has two problems: a field that nobody knows and a negative port.
var broken = istio.File{Name: "broken.yaml", Data: []byte(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: broken, namespace: shop}
spec:
  hosts: [broken.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  nonsense: true
  ports:
  - {number: 70000, name: http, protocol: HTTP}
`)}

func TestNewReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Files: []istio.File{broken}})
	invalid, ok := errors.AsType[*InvalidConfigError](err)
	if !ok {
		t.Fatalf("got %v, want an *InvalidConfigError", err)
	}
	if len(invalid.Problems) < 2 {
		t.Errorf("got %d problems, want both", len(invalid.Problems))
	}
	for _, want := range []string{"broken.yaml:8", "nonsense", "broken.yaml:10", "70000"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestNewRefusesContradictions(t *testing.T) {
	t.Parallel()
	authority := mustCA(t, ca.Config{TrustDomain: "example.org"})
	for _, tt := range []struct {
		name   string
		config Config
		want   string
	}{
		{"two sources", Config{Dir: ".", Files: []istio.File{broken}}, "both Dir and Files are set: give one"},
		{"another trust domain", Config{CA: authority, TrustDomain: "other.org"}, `trust domain "other.org" is not that of the CA, "example.org"`},
		{"no trust domain", Config{TrustDomain: "Not One"}, `trust domain "Not One"`},
		{"names without a CA", Config{ServerNames: []string{"x"}}, "ServerNames are set without a CA"},
		{"a directory that is not there", Config{Dir: "testdata/none"}, "no such file or directory"},
	} {
		if _, err := New(tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestBadChangeKeepsWhatIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs logBuffer
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}, Logger: logs.logger()})
		c := newDelta(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", "customer"))
		c.subscribe(eds, cluster("payment"))
		c.want(eds, []string{cluster("payment")}, nil)
		version := s.Status().Config.Version

		problems := s.Update([]istio.File{service("payment", "10.0.0.2"), broken})
		if len(problems) < 2 {
			t.Errorf("problems %v, want both", problems)
		}
		c.quiet()
		config := s.Status().Config
		if config.Version != version || len(config.Problems) != len(problems) || config.Rejected.IsZero() {
			t.Errorf("status %+v", config)
		}
		if logs.count("configuration rejected") != 1 || logs.count("broken.yaml:8") != 1 {
			t.Errorf("problems are not in the log once:\n%s", &logs)
		}

		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.quiet() // what is served is what was served
		config = s.Status().Config
		if config.Version != version || config.Problems != nil || !config.Rejected.IsZero() {
			t.Errorf("status %+v", config)
		}
		if logs.count("configuration is good again") != 1 {
			t.Errorf("recovery is not in the log:\n%s", &logs)
		}
	})
}

func TestWhatClientsRejectDoesNotReplaceWhatTheyHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := Config{Files: []istio.File{service("payment", "10.0.0.1")}, Check: func(typeURL string, value []byte) error {
			if typeURL == eds && strings.Contains(string(value), "10.0.0.2") {
				return errors.New("endpoints[0]: not that one")
			}
			return nil
		}}
		s := mustNew(t, config)
		c := newDelta(t, dial(t, serveMemory(t, s), "plaintext:1"), node("shop", "customer"))
		c.subscribe(eds, cluster("payment"))
		c.want(eds, []string{cluster("payment")}, nil)
		problems := s.Update([]istio.File{service("payment", "10.0.0.2")})
		c.quiet()
		if len(problems) != 1 || problems[0].Object != "ServiceEntry shop/payment" || problems[0].Line != 6 || !strings.Contains(problems[0].Message, "endpoints[0]: not that one") {
			t.Errorf("problems %+v", problems)
		}
		config.Files = []istio.File{service("payment", "10.0.0.2")}
		if _, err := New(config); err == nil {
			t.Error("a server begins with what clients reject")
		}
	})
}

// Of a change only what changed is asked about, and what was refused is asked again.
func TestClientsAreAskedAboutWhatChanged(t *testing.T) {
	t.Parallel()
	asked := make(map[string]int)
	refuse := false
	s := mustNew(t, Config{
		Files: []istio.File{service("payment", "10.0.0.1"), service("order", "10.0.0.1")},
		Check: func(typeURL string, value []byte) error {
			asked[typeURL]++
			if refuse && typeURL == eds && strings.Contains(string(value), "10.0.0.2") {
				return errors.New("not that one")
			}
			return nil
		},
	})
	for _, step := range []struct {
		name     string
		address  string
		refuse   bool
		problems int
		want     map[string]int
	}{
		{"nothing changes", "10.0.0.1", false, 0, map[string]int{}},
		{"endpoints change", "10.0.0.2", true, 1, map[string]int{eds: 1}},
		{"what was refused is asked again", "10.0.0.2", false, 0, map[string]int{eds: 1}},
		{"back to what was there before the last one", "10.0.0.1", false, 0, map[string]int{eds: 1}},
	} {
		clear(asked)
		refuse = step.refuse
		problems := s.Update([]istio.File{service("payment", step.address), service("order", "10.0.0.1")})
		if len(problems) != step.problems || !maps.Equal(asked, step.want) {
			t.Errorf("%s: asked %v, problems %v; want %v", step.name, asked, problems, step.want)
		}
	}
}

func TestStatusShowsWhatIsServedAfterConcurrentUpdates(t *testing.T) {
	t.Parallel()
	s := mustNew(t, Config{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				s.Update([]istio.File{service("payment", fmt.Sprintf("10.0.%d.%d", i, j))})
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		for j := range 20 {
			address := fmt.Sprintf("10.0.%d.%d", i, j)
			if versionOf([]istio.File{service("payment", address)}) == s.Status().Config.Version &&
				!strings.Contains(addresses(t, s, "payment"), address) {
				t.Errorf("status says %s, served is another", address)
			}
		}
	}
}

func TestNACKsAreShownAndLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs logBuffer
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}, Logger: logs.logger()})
		conn := dial(t, serveMemory(t, s), "plaintext:1")
		d, w := newDelta(t, conn, node("shop", "customer")), newSotw(t, conn, node("shop", "customer"))
		const reason = "no\nthanks"
		d.subscribe(cds, cluster("payment"))
		rejected := d.next()
		d.nack(rejected, reason)
		w.subscribe(cds, cluster("payment"))
		w.last[cds] = w.next()
		w.request(cds, reason, cluster("payment"))
		w.subscribe(cds, cluster("payment"), "x") // more names, still rejected
		synctest.Wait()

		for _, client := range s.Status().Clients {
			state := client.Types[cds]
			if state.NACK == nil || state.NACK.Error != reason || !state.NACK.Active || state.NACK.Version == "" || state.Acked != "" {
				t.Errorf("%s: %+v with NACK %+v", client.Protocol, state, state.NACK)
			}
		}
		if logs.count("client rejected configuration") != 1 || !strings.Contains(logs.String(), `error="no\nthanks"`) {
			t.Errorf("want one line for one reason:\n%s", &logs)
		}

		d.nack(rejected, "another reason")
		mustUpdate(t, s, service("payment", "10.0.0.1"), service("ledger", "10.0.0.1"))
		d.subscribe(cds, cluster("ledger"))
		d.want(cds, []string{cluster("ledger")}, nil)
		synctest.Wait()
		if logs.count("client rejected configuration") != 2 {
			t.Errorf("want a line for each reason:\n%s", &logs)
		}
		for _, client := range s.Status().Clients {
			if state := client.Types[cds]; client.Protocol == "delta" && (state.NACK.Active || state.Acked != state.Sent) {
				t.Errorf("taken, and still %+v with NACK %+v", state, state.NACK)
			}
		}
	})
}

func TestLongTextsOfClientsAreCut(t *testing.T) {
	t.Parallel()
	if got := clip(strings.Repeat("é", 2000)); len(got) > 1030 || !strings.HasSuffix(got, "é...") {
		t.Errorf("%d bytes: %q", len(got), got[len(got)-10:])
	}
	var s seen
	for i := range maxSeen + 1 {
		s.first(strings.Repeat("x", i))
	}
	if len(s.texts) != 1 {
		t.Errorf("%d texts are remembered", len(s.texts))
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Config{CA: mustCA(t, ca.Config{})})
		if err != nil {
			t.Fatal(err)
		}
		network := serveMemory(t, s)
		c := newDelta(t, dial(t, network, "plaintext:1"), node("shop", "customer"))
		c.subscribe(cds, "x")
		c.want(cds, nil, []string{"x"})
		// Somebody who watches the health does not hold it up for long.
		watch, err := grpc_health_v1.NewHealthClient(dial(t, network, "plaintext:1")).Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for range 2 {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > shutdownGrace {
			t.Errorf("took %v, want at most %v", took, shutdownGrace)
		}
		if err := c.end(); !errors.Is(err, io.EOF) {
			t.Errorf("stream ended with %v", err)
		}
		if err := s.Serve(context.Background(), Listeners{}); !errors.Is(err, ErrClosed) {
			t.Errorf("serve after close: %v", err)
		}
	})
}

func TestServeNeedsListenersThatItCanServe(t *testing.T) {
	t.Parallel()
	s := mustNew(t, Config{})
	if err := s.Serve(t.Context(), Listeners{}); err == nil || err.Error() != "serve: no listener is given" {
		t.Errorf("got %v", err)
	}
	listener, err := new(memnet.Network).Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), Listeners{Secure: listener}); err == nil || err.Error() != "serve: the secure listener needs a CA" {
		t.Errorf("got %v", err)
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener is left open: %v", err)
	}
}

func TestServeEndsWithAListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{})
		network := new(memnet.Network)
		good, err := network.Listen("good")
		if err != nil {
			t.Fatal(err)
		}
		bad, err := network.Listen("bad")
		if err != nil {
			t.Fatal(err)
		}
		_ = bad.Close()
		if err := s.Serve(t.Context(), Listeners{Plaintext: good, Status: bad}); err == nil || !strings.Contains(err.Error(), "serve status listener") {
			t.Errorf("got %v", err)
		}
	})
}

func TestRegisterOnAServerOfOnesOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
		network := new(memnet.Network)
		for address, register := range map[string]func(grpc.ServiceRegistrar){"open": s.RegisterPlaintext, "shut": s.Register} {
			listener, err := network.Listen(address)
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			register(server)
			go func() { _ = server.Serve(listener) }()
			t.Cleanup(server.Stop)
		}
		c := newDelta(t, dial(t, network, "open"), node("shop", "customer"))
		c.subscribe(cds, cluster("payment"))
		c.want(cds, []string{cluster("payment")}, nil)
		// Without a CA nobody is known.
		wantCode(t, newDelta(t, dial(t, network, "shut"), node("shop", "customer")).end(), codes.Unauthenticated)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := c.end(); !errors.Is(err, io.EOF) {
			t.Errorf("stream ended with %v", err)
		}
		wantCode(t, newDelta(t, dial(t, network, "open"), node("shop", "customer")).end(), codes.Unavailable)
	})
}

func TestStatusPage(t *testing.T) {
	t.Parallel()
	s := mustNew(t, Config{Files: []istio.File{service("payment", "10.0.0.1")}})
	handler := s.StatusHandler()
	get := func(method, path, host string, local net.Addr) *httptest.ResponseRecorder {
		request := httptest.NewRequest(method, path, nil)
		request.Host = host
		if local != nil {
			request = request.WithContext(context.WithValue(request.Context(), http.LocalAddrContextKey, local))
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		return recorder
	}
	loopback, public := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	for _, tt := range []struct {
		name, method, path, host string
		local                    net.Addr
		want                     int
	}{
		{"status", "GET", "/status", "localhost:15014", loopback, 200},
		{"by address", "GET", "/status", "127.0.0.1:15014", loopback, 200},
		{"by address of the new kind", "GET", "/status", "[::1]", loopback, 200},
		{"by a name that was made to lead here", "GET", "/status", "evil.test:15014", loopback, 403},
		{"by any name where others are meant to come", "GET", "/status", "control.test", public, 200},
		{"health", "GET", "/healthz", "localhost", loopback, 200},
		{"readiness", "GET", "/readyz", "localhost", loopback, 200},
		{"a change", "POST", "/status", "localhost", loopback, 405},
		{"something else", "GET", "/", "localhost", loopback, 404},
	} {
		if got := get(tt.method, tt.path, tt.host, tt.local).Code; got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	var page Status
	if err := json.Unmarshal(get("GET", "/status", "", nil).Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if page.Config.Version == "" || page.Config.Files != 1 || page.Clients == nil {
		t.Errorf("status %+v", page)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := get("GET", "/readyz", "", nil).Code; got != 503 {
		t.Errorf("ready after close: %d", got)
	}
}

func TestVersionsSurviveARestart(t *testing.T) {
	t.Parallel()
	files := []istio.File{service("payment", "10.0.0.1")}
	first, second := mustNew(t, Config{Files: files}), mustNew(t, Config{Files: files})
	if a, b := first.Status().Config.Version, second.Status().Config.Version; a != b {
		t.Errorf("versions %q and %q", a, b)
	}
	at := func(s *Server, typeURL, name string) string {
		e, err := s.watches.current.Load().lookup(istio.Node{Namespace: "shop"}, typeURL, name)
		if err != nil || e == nil {
			t.Fatal(typeURL, name, err)
		}
		return e.version
	}
	for typeURL, name := range map[string]string{lds: host("payment") + ":8080", rds: cluster("payment"), cds: cluster("payment"), eds: cluster("payment")} {
		if a, b := at(first, typeURL, name), at(second, typeURL, name); a != b {
			t.Errorf("%s: versions %q and %q", shortType(typeURL), a, b)
		}
	}
}

func TestIdleStreamWithKeepaliveStays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, Config{})
		conn := dial(t, serveMemory(t, s), "plaintext:1",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}))
		c := newDelta(t, conn, node("shop", "customer"))
		c.subscribe(eds, cluster("payment"))
		c.want(eds, nil, []string{cluster("payment")})
		time.Sleep(time.Hour)
		mustUpdate(t, s, service("payment", "10.0.0.1"))
		c.want(eds, []string{cluster("payment")}, nil)
	})
}

package mesh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const ledgerHost = "ledger.shop.svc.cluster.local:5432"

// ledgerWorld is a database that greets whoever gets through, before they have said
// anything, and echoes what they say.
type ledgerWorld struct {
	*meshtest.World

	served atomic.Int64
	events atomic.Int64 // denials that are reported
	shadow atomic.Int64 // what policies on trial would deny
	logged atomic.Int64
}

func newLedgerWorld(t *testing.T, before string) *ledgerWorld {
	t.Helper()
	w := &ledgerWorld{World: meshtest.New(t)}
	if before != "" {
		w.Apply(before)
	}
	hooks := &observe.Hooks{Authorized: func(e observe.AuthorizationEvent) {
		switch {
		case e.Shadow && !e.Allowed:
			w.shadow.Add(1)
		case e.Logged:
			w.logged.Add(1)
		case !e.Shadow && !e.Allowed:
			w.events.Add(1)
		}
	}}
	w.Service("ledger.shop", meshtest.Hooks(hooks), meshtest.Labels(map[string]string{"app": "ledger"}), meshtest.TCP(5432, func(conn net.Conn) {
		w.served.Add(1)
		if _, err := io.WriteString(conn, "hello"); err == nil {
			_, _ = io.Copy(conn, conn)
		}
	}))
	return w
}

// greeted reports whether a peer gets through: it is told hello.
func greeted(conn net.Conn, err error) error {
	if err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return errors.New("was told " + string(got))
	}
	return nil
}

func (w *ledgerWorld) dial(t *testing.T, m *mesh.Mesh) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := m.Dial(ctx, "tcp", ledgerHost)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, greeted(conn, nil)
}

func ledgerPolicy(spec string) string {
	return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: " + spec + "\n"
}

const ledgerStrict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n"

// TestV11_PoliciesAboutConnections are Istio's for ports of TCP: what looks at requests
// allows nothing, and denies more.
func TestV11_PoliciesAboutConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                   string
		spec                   string
		customer, other, plain bool
	}{
		{"nobody says anything", "", true, true, true},
		{"ALLOW without rules", `{}`, false, false, false},
		{"ALLOW of a principal", `{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}`, true, false, false},
		{"ALLOW of a namespace", `{rules: [{from: [{source: {namespaces: [bank]}}]}]}`, false, true, false},
		{"ALLOW of a service account", `{rules: [{from: [{source: {serviceAccounts: [customer]}}]}]}`, true, false, false},
		{"ALLOW of the port", `{rules: [{to: [{operation: {ports: ["5432"]}}]}]}`, true, true, true},
		{"ALLOW of another port", `{rules: [{to: [{operation: {ports: ["5433"]}}]}]}`, false, false, false},
		{"ALLOW of an address", `{rules: [{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}]}`, false, false, false},
		{"ALLOW of methods matches no connection", `{rules: [{to: [{operation: {methods: [GET]}}]}]}`, false, false, false},
		{"ALLOW of other methods neither", `{rules: [{to: [{operation: {notMethods: [GET]}}]}]}`, false, false, false},
		{"ALLOW of requests or of a principal", `{rules: [{to: [{operation: {paths: [/a]}}]}, {from: [{source: {principals: ["cluster.local/ns/shop/*"]}}]}]}`, true, false, false},
		{"ALLOW of a principal with a token", `{rules: [{from: [{source: {principals: ["*"], requestPrincipals: ["*"]}}]}]}`, false, false, false},
		{"ALLOW of a header", `{rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]}`, false, false, false},
		{"DENY of a principal", `{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}`, false, true, true},
		{"DENY of methods denies every connection", `{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}`, false, false, false},
		{"DENY of a path to a principal denies the principal", `{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}], from: [{source: {namespaces: [bank]}}]}]}`, true, false, true},
		{"DENY of those without a token denies everybody", `{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]}`, false, false, false},
		{"DENY of what is not TLS", `{action: DENY, rules: [{from: [{source: {notPrincipals: ["*"]}}]}]}`, true, true, false},
		{"a selector that does not fit", `{selector: {matchLabels: {app: other}}, action: DENY, rules: [{}]}`, true, true, true},
		{"AUDIT decides nothing", `{action: AUDIT, rules: [{}]}`, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newLedgerWorld(t, "")
				shop, bank := w.Workload("customer.shop"), w.Workload("customer.bank")
				if tt.spec != "" {
					w.Apply(ledgerPolicy(tt.spec))
				}
				denied := 0
				for _, c := range []struct {
					name string
					want bool
					dial func() (net.Conn, error)
				}{
					{"the customer", tt.customer, func() (net.Conn, error) { return w.dial(t, shop) }},
					{"somebody of another namespace", tt.other, func() (net.Conn, error) { return w.dial(t, bank) }},
					{"somebody without TLS", tt.plain, func() (net.Conn, error) {
						conn, err := w.DialContext(t.Context(), "tcp", "ledger.shop:5432")
						if err != nil {
							return nil, err
						}
						t.Cleanup(func() { _ = conn.Close() })
						if _, err := io.WriteString(conn, "first"); err != nil { // PERMISSIVE waits for it
							return nil, err
						}
						return conn, greeted(conn, nil)
					}},
				} {
					if _, err := c.dial(); (err == nil) != c.want {
						t.Errorf("%s: %v", c.name, err)
					}
					if !c.want {
						denied++
					}
				}
				if got := w.served.Load(); got != int64(3-denied) {
					t.Errorf("%d connections reached the application, want %d", got, 3-denied)
				}
				if got := w.events.Load(); got != int64(denied) {
					t.Errorf("%d denials are reported, want %d", got, denied)
				}
				if audit := strings.Contains(tt.spec, "AUDIT"); (w.logged.Load() == 3) != audit {
					t.Errorf("%d connections are logged", w.logged.Load())
				}
			})
		})
	}
}

func TestAPolicyOnTrialIsReportedOfConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		customer := w.Workload("customer.shop")
		w.Apply(strings.Replace(ledgerPolicy(`{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}`), "name: p", `name: p, annotations: {istio.io/dry-run: "true"}`, 1))
		if _, err := w.dial(t, customer); err != nil {
			t.Error(err)
		}
		if got := w.shadow.Load(); got != 1 {
			t.Errorf("%d decisions of the policy on trial are reported", got)
		}
	})
}

// TestCustomDeniesConnections: nobody is asked about them, and to let them through
// would be to pretend.
func TestV58_CustomDeniesConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		customer := w.Workload("customer.shop")
		custom := `{action: CUSTOM, provider: {name: nobody}, rules: [{to: [{operation: {paths: [/admin], ports: ["PORT"]}}]}]}`
		w.Apply(ledgerPolicy(strings.Replace(custom, "PORT", "5432", 1)))
		if _, err := w.dial(t, customer); err == nil {
			t.Error("a connection that a service should be asked about is accepted")
		}
		w.Apply(ledgerPolicy(strings.Replace(custom, "PORT", "5433", 1)))
		if _, err := w.dial(t, customer); err != nil {
			t.Errorf("with a policy for another port: %v", err)
		}
	})
}

// TestAPolicyEndsOpenConnections of TCP within its limit, and leaves those alone that
// it would let in.
func TestV25_APolicyEndsOpenConnectionsOfTCP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		shop, bank := w.Workload("customer.shop"), w.Workload("customer.bank")
		allowed, err := w.dial(t, shop)
		if err != nil {
			t.Fatal(err)
		}
		refused, err := w.dial(t, bank)
		if err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		w.Apply(ledgerPolicy(`{rules: [{from: [{source: {namespaces: [shop]}}]}]}`))
		if _, err := refused.Read(make([]byte, 1)); err == nil {
			t.Error("something was read over a connection that is not allowed any more")
		}
		if took := time.Since(before); took > 5*time.Second {
			t.Errorf("the connection was closed after %v", took)
		}
		if _, err := io.WriteString(allowed, "again"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(allowed, make([]byte, 5)); err != nil {
			t.Errorf("a connection that is allowed still: %v", err)
		}
		time.Sleep(time.Minute)
		if got := w.events.Load(); got != 1 {
			t.Errorf("%d denials are reported, want 1", got)
		}
	})
}

func TestV28_PlaintextConnectionsOfTCPEndWhenOnlyTLSMayCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		conn, err := w.DialContext(t.Context(), "tcp", "ledger.shop:5432")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "first"); err != nil {
			t.Fatal(err)
		}
		if err := greeted(conn, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		w.Apply(ledgerStrict)
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a plaintext connection is open under STRICT")
		}
		if _, err := w.dial(t, w.Workload("customer.shop")); err != nil {
			t.Errorf("under STRICT: %v", err)
		}
	})
}

// TestAServerOfTCPDoesNotServeWhatItCannotEnforce: policies about requests, at a port
// of HTTP, hold for nobody who reads the bytes by himself.
func TestV11_AServerOfTCPDoesNotServeWhatItCannotEnforce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Apply(ledgerPolicy(`{rules: [{to: [{operation: {methods: [GET]}}]}]}`))
		m := w.Workload("customer.shop", meshtest.Labels(map[string]string{"app": "customer"}))
		var pipes pipeListener
		ln, err := m.ServeTCP(t.Context(), &pipes)
		if err == nil {
			_ = ln.Close()
			t.Fatal("it serves")
		}
		if !strings.Contains(err.Error(), "a server of TCP has none") {
			t.Errorf("the error is %v", err)
		}
		if !pipes.closed.Load() {
			t.Error("the listener below is open")
		}
	})
}

// pipeListener is a listener without connections.
type pipeListener struct{ closed atomic.Bool }

func (l *pipeListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (l *pipeListener) Close() error              { l.closed.Store(true); return nil }
func (l *pipeListener) Addr() net.Addr            { return &net.TCPAddr{IP: net.IPv4(10, 255, 0, 1), Port: 7000} }

func TestDialRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		w.Service("payment.shop")
		w.Apply(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec: {hosts: [payment], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: payment}}]}, {route: [{destination: {host: payment}}]}]}
`)
		m := w.Workload("customer.shop")
		for _, tt := range []struct {
			name, network, address, want string
			kind                         outcome.Kind
		}{
			{"another network", "udp", ledgerHost, `network "udp" is not supported: use "tcp"`, 0},
			{"no port", "tcp", "ledger.shop", "missing port in address", 0},
			{"an unknown host", "tcp", "nobody.shop.svc.cluster.local:1", "registry only", outcome.UnknownHost},
			{"routes of requests", "tcp", "payment.shop.svc.cluster.local:80", "its routes depend on requests", outcome.NoRoute},
		} {
			conn, err := m.Dial(t.Context(), tt.network, tt.address)
			if err == nil {
				_ = conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if failure, ok := errors.AsType[*mesh.Error](err); ok != (tt.kind != 0) || ok && failure.Kind != tt.kind {
				t.Errorf("%s: the error is %#v", tt.name, failure)
			}
		}
	})
}

func TestDialGoesToAnotherEndpointAndKeepsTheLimitOfConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newLedgerWorld(t, "")
		second := w.Service("ledger.shop", meshtest.TCP(5432, func(conn net.Conn) { _, _ = io.WriteString(conn, "hello") }))
		m := w.Workload("customer.shop")
		second.Kill()
		w.Apply(`apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ledger, namespace: shop}
spec: {host: ledger, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}}
`)
		var open []net.Conn
		for range 2 {
			conn, err := w.dial(t, m)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
		_, err := w.dial(t, m)
		if failure, ok := errors.AsType[*mesh.Error](err); !ok || failure.Kind != outcome.Overflow {
			t.Errorf("a third connection: %v", err)
		}
		for range 2 { // once, however often it is closed
			_ = open[0].Close()
		}
		if _, err := w.dial(t, m); err != nil {
			t.Errorf("after one was closed: %v", err)
		}
		if _, err := w.dial(t, m); err == nil {
			t.Error("a permit was given back twice")
		}
	})
}

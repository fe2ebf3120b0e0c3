package mesh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// streamRow is one field of the configuration and what it does to connections of TCP. It
// has a world of its own, in fake time.
type streamRow struct {
	name string
	// documents are Istio's, for the host ledger in the namespace shop.
	documents string
	// instances are further options of the instances of the ledger, one list each; nil
	// are one of the version v1 and one of v2.
	instances [][]meshtest.Option
	// customer are further options of the customer.
	customer func(w *streamWorld) []meshtest.Option
	run      func(t *testing.T, w *streamWorld)
}

// streamWorld is a ledger that greets with the name of its version, at two ports, and
// echoes what it is told, and who calls it.
type streamWorld struct {
	*meshtest.World

	ledgers        []*meshtest.Instance
	customer, bank *mesh.Mesh

	mu      sync.Mutex
	ejected []string            // guarded by mu; reasons
	opened  []observe.ConnEvent // guarded by mu
	probed  []net.KeepAliveConfig
	hello   []byte // guarded by mu
}

func newStreamWorld(t *testing.T, row *streamRow) *streamWorld {
	t.Helper()
	w := &streamWorld{World: meshtest.New(t)}
	instances := row.instances
	if instances == nil {
		instances = [][]meshtest.Option{{meshtest.Version("v1")}, {meshtest.Version("v2")}}
	}
	for i, options := range instances {
		name := "v" + string(rune('1'+i))
		greets := func(conn net.Conn) {
			if _, err := io.WriteString(conn, name); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}
		options = append([]meshtest.Option{meshtest.TCP(5432, greets), meshtest.TCP(5433, greets)}, options...)
		w.ledgers = append(w.ledgers, w.Service("ledger.shop", options...))
	}
	if row.documents != "" {
		w.Apply(row.documents)
	}
	options := []meshtest.Option{
		meshtest.Labels(map[string]string{"tier": "gold"}), meshtest.Locality("r1/z1"),
		meshtest.Hooks(&observe.Hooks{
			EndpointEjected: func(e observe.EjectionEvent) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.ejected = append(w.ejected, e.Reason)
			},
			ConnOpened: func(e observe.ConnEvent) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.opened = append(w.opened, e)
			},
		}),
	}
	if row.customer != nil {
		options = append(options, row.customer(w)...)
	}
	w.customer, w.bank = w.Workload("customer.shop", options...), w.Workload("customer.bank")
	return w
}

// dial connects, and returns the instance that greets.
func (w *streamWorld) dial(t *testing.T, m *mesh.Mesh, port string) (conn net.Conn, instance string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	opened, err := m.Dial(ctx, "tcp", "ledger.shop.svc.cluster.local:"+port)
	if err != nil {
		return nil, "", err
	}
	t.Cleanup(func() { _ = opened.Close() })
	got := make([]byte, 2)
	if _, err := io.ReadFull(opened, got); err != nil {
		return nil, "", err
	}
	return opened, string(got), nil
}

// counts connects so often, one after the other, and counts who greets; "" is nobody.
func (w *streamWorld) counts(t *testing.T, n int) map[string]int {
	t.Helper()
	counts := make(map[string]int)
	for range n {
		conn, instance, _ := w.dial(t, w.customer, "5432")
		if conn != nil {
			_ = conn.Close()
		}
		counts[instance]++
	}
	return counts
}

// echoesBack reports whether a connection is open still.
func echoesBack(conn net.Conn) bool {
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err == nil
}

// ends waits for the end of a connection, for so long at most.
func ends(conn net.Conn, within time.Duration) (after time.Duration, ended bool) {
	begin := time.Now()
	_ = conn.SetReadDeadline(begin.Add(within))
	_, err := conn.Read(make([]byte, 1))
	return time.Since(begin), err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// streamRule is a DestinationRule of the ledger.
func streamRule(policy string) string {
	return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ledger, namespace: shop}\nspec: {host: ledger, trafficPolicy: {" + policy + "}}\n"
}

// streamRoutes is a VirtualService of the ledger, with its versions.
func streamRoutes(spec string) string {
	return `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ledger, namespace: shop}
spec: {host: ledger, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ledger, namespace: shop}
spec: {hosts: [ledger], ` + spec + "}\n"
}

// overOne is the network of a customer of the first ledger, around its connections.
func overOne(around func(w *streamWorld, conn net.Conn) net.Conn) func(w *streamWorld) []meshtest.Option {
	return func(w *streamWorld) []meshtest.Option {
		return []meshtest.Option{meshtest.Mesh(mesh.Network{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			conn, err := w.DialContext(ctx, network, "ledger.shop:"+port)
			if err != nil {
				return nil, err
			}
			return around(w, conn), nil
		}})}
	}
}

// watchedConn remembers how it is kept alive, and what is written first.
type watchedConn struct {
	net.Conn

	world *streamWorld
	once  sync.Once
}

func (c *watchedConn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	c.world.probed = append(c.world.probed, config)
	return nil
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.once.Do(func() {
		c.world.mu.Lock()
		defer c.world.mu.Unlock()
		c.world.hello = append(c.world.hello, b...)
	})
	return c.Conn.Write(b)
}

func watched(w *streamWorld, conn net.Conn) net.Conn { return &watchedConn{Conn: conn, world: w} }

// muted is a network over which nothing comes.
func muted(_ *streamWorld, conn net.Conn) net.Conn {
	m := memnet.NewMutable(conn)
	m.Silence()
	return m
}

var oneLedger = [][]meshtest.Option{{meshtest.Version("v1")}}

func streamRows() []streamRow {
	return slices.Concat(streamRouteRows(), streamPoolRows(), streamBalancingRows(), streamTLSRows(), streamPolicyRows())
}

// streamDocuments are those of all rows.
func streamDocuments() string {
	var documents []string
	rows := streamRows()
	for i := range rows {
		documents = append(documents, rows[i].documents)
	}
	return strings.Join(documents, "---\n")
}

// streamRouteRows are the rules of spec.tcp. Rules about requests, of the same
// VirtualService, are for other ports.
func streamRouteRows() []streamRow {
	const v1, v2 = `[{destination: {host: ledger, subset: v1}}]`, `[{destination: {host: ledger, subset: v2}}]`
	var rows []streamRow
	for _, tt := range []struct {
		name, spec          string
		first, second, bank string // who greets at the two ports, and a caller of another namespace at the first
	}{
		{"all", `tcp: [{route: ` + v2 + `}]`, "v2", "v2", "v2"},
		{".match.port", `tcp: [{match: [{port: 5433}], route: ` + v1 + `}, {route: ` + v2 + `}]`, "v2", "v1", "v2"},
		{".match.sourceNamespace", `tcp: [{match: [{sourceNamespace: bank}], route: ` + v1 + `}, {route: ` + v2 + `}]`, "v2", "v2", "v1"},
		{".match.sourceLabels", `tcp: [{match: [{sourceLabels: {tier: gold}}], route: ` + v2 + `}, {route: ` + v1 + `}]`, "v2", "v2", "v1"},
		{".match of several", `tcp: [{match: [{port: 5432, sourceLabels: {tier: gold}}, {sourceNamespace: bank}], route: ` + v2 + `}, {route: ` + v1 + `}]`, "v2", "v1", "v2"},
		{".route.weight, all of it", `tcp: [{route: [{destination: {host: ledger, subset: v1}, weight: 0}, {destination: {host: ledger, subset: v2}, weight: 100}]}]`, "v2", "v2", "v2"},
		{".route.destination.port", `tcp: [{route: [{destination: {host: ledger, subset: v2, port: {number: 5433}}}]}]`, "v2", "v2", "v2"},
		{" beside http", "http: [{match: [{uri: {prefix: /a}}], route: " + v1 + "}], tcp: [{route: " + v2 + `}]`, "v2", "v2", "v2"},
		{".match.gateways", `gateways: [mesh, edge], tcp: [{match: [{gateways: [edge]}], route: ` + v1 + `}, {route: ` + v2 + `}]`, "v2", "v2", "v2"},
	} {
		row := streamRow{name: "VirtualService.tcp" + tt.name, documents: streamRoutes(tt.spec), run: func(t *testing.T, w *streamWorld) {
			for range 3 {
				for _, c := range []struct {
					who        *mesh.Mesh
					port, want string
				}{{w.customer, "5432", tt.first}, {w.customer, "5433", tt.second}, {w.bank, "5432", tt.bank}} {
					if _, got, err := w.dial(t, c.who, c.port); got != c.want {
						t.Errorf("port %s, a customer of the bank %t: %q greets, want %q: %v", c.port, c.who == w.bank, got, c.want, err)
					}
				}
			}
		}}
		if strings.Contains(tt.spec, "http:") {
			web := meshtest.HTTP(80, http.NotFoundHandler())
			row.instances = [][]meshtest.Option{{meshtest.Version("v1"), web}, {meshtest.Version("v2"), web}}
		}
		rows = append(rows, row)
	}
	return append(rows, streamRow{
		name:      "VirtualService.tcp.route.weight",
		documents: streamRoutes(`tcp: [{route: [{destination: {host: ledger, subset: v1}, weight: 1}, {destination: {host: ledger, subset: v2}, weight: 3}]}]`),
		run: func(t *testing.T, w *streamWorld) {
			const n = 400
			// A quarter, with six standard deviations.
			if counts := w.counts(t, n); counts["v1"] < n/4-52 || counts["v1"] > n/4+52 || counts["v1"]+counts["v2"] != n {
				t.Errorf("greeted by %v", counts)
			}
		},
	})
}

func streamPoolRows() []streamRow {
	lasts := func(want time.Duration, active bool) func(t *testing.T, w *streamWorld) {
		return func(t *testing.T, w *streamWorld) {
			begin := time.Now()
			conn, _, err := w.dial(t, w.customer, "5432")
			if err != nil {
				t.Fatal(err)
			}
			if !active {
				if after, ended := ends(conn, 3*time.Hour); !ended || after != want {
					t.Errorf("it ended %t after %v, want %v", ended, after, want)
				}
				return
			}
			for echoesBack(conn) && time.Since(begin) < 3*time.Hour {
				time.Sleep(20 * time.Second)
			}
			if lasted := time.Since(begin); lasted < want || lasted > want+20*time.Second {
				t.Errorf("it was open for %v, want %v", lasted, want)
			}
		}
	}
	return []streamRow{
		{
			name: "connectionPool.tcp.maxConnections", documents: streamRule("connectionPool: {tcp: {maxConnections: 2}}"),
			run: func(t *testing.T, w *streamWorld) {
				var open []net.Conn
				for range 2 {
					conn, _, err := w.dial(t, w.customer, "5432")
					if err != nil {
						t.Fatal(err)
					}
					open = append(open, conn)
				}
				_, _, err := w.dial(t, w.customer, "5432")
				if failure, ok := errors.AsType[*mesh.Error](err); !ok || failure.Kind != outcome.Overflow {
					t.Errorf("a third connection: %v", err)
				}
				if _, _, err := w.dial(t, w.customer, "5433"); err != nil {
					t.Errorf("at another port: %v", err)
				}
				_ = open[0].Close()
				if _, _, err := w.dial(t, w.customer, "5432"); err != nil {
					t.Errorf("after one was closed: %v", err)
				}
			},
		},
		{
			name: "connectionPool.tcp.connectTimeout", documents: streamRule("connectionPool: {tcp: {connectTimeout: 150ms}}"),
			instances: oneLedger, customer: overOne(muted),
			run: func(t *testing.T, w *streamWorld) {
				begin := time.Now()
				_, _, err := w.dial(t, w.customer, "5432")
				failure, ok := errors.AsType[*mesh.Error](err)
				if !ok || failure.Kind != outcome.ConnectFailure || failure.Attempts < 1 {
					t.Fatalf("a ledger that does not answer: %v", err)
				}
				if took := time.Since(begin); took != time.Duration(failure.Attempts)*150*time.Millisecond {
					t.Errorf("%d attempts took %v", failure.Attempts, took)
				}
			},
		},
		{
			name: "connectionPool.tcp.idleTimeout", documents: streamRule("connectionPool: {tcp: {idleTimeout: 30s}}"), instances: oneLedger,
			run: lasts(30*time.Second, false),
		},
		{
			name: "connectionPool.tcp.idleTimeout of a connection that is not idle", documents: streamRule("connectionPool: {tcp: {idleTimeout: 30s}}"), instances: oneLedger,
			run: lasts(3*time.Hour, true),
		},
		{
			name: "connectionPool.http.idleTimeout is about requests", documents: streamRule("connectionPool: {http: {idleTimeout: 1s}, tcp: {idleTimeout: 30s}}"), instances: oneLedger,
			run: lasts(30*time.Second, false),
		},
		{
			name: "without connectionPool.tcp.idleTimeout a connection may be idle", documents: streamRule("connectionPool: {http: {idleTimeout: 1s}}"), instances: oneLedger,
			run: func(t *testing.T, w *streamWorld) {
				conn, _, err := w.dial(t, w.customer, "5432")
				if err != nil {
					t.Fatal(err)
				}
				if _, ended := ends(conn, 3*time.Hour); ended {
					t.Error("it was closed")
				}
			},
		},
		{
			name: "connectionPool.tcp.maxConnectionDuration", documents: streamRule("connectionPool: {tcp: {maxConnectionDuration: 90s}}"), instances: oneLedger,
			run: lasts(90*time.Second, true),
		},
		{
			name: "connectionPool.tcp.idleTimeout that changes", documents: streamRule("connectionPool: {tcp: {idleTimeout: 1h}}"), instances: oneLedger,
			run: func(t *testing.T, w *streamWorld) {
				conn, _, err := w.dial(t, w.customer, "5432")
				if err != nil {
					t.Fatal(err)
				}
				w.Apply(streamRule("connectionPool: {tcp: {idleTimeout: 10s}}"))
				if after, ended := ends(conn, time.Hour); !ended || after > 15*time.Second {
					t.Errorf("it ended %t after %v", ended, after)
				}
			},
		},
		{
			name: "connectionPool.tcp.tcpKeepalive", documents: streamRule("connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 71s, interval: 9s}}}"),
			instances: oneLedger, customer: overOne(watched),
			run: func(t *testing.T, w *streamWorld) {
				if _, _, err := w.dial(t, w.customer, "5432"); err != nil {
					t.Fatal(err)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if want := (net.KeepAliveConfig{Enable: true, Idle: 71 * time.Second, Interval: 9 * time.Second, Count: 3}); !slices.Contains(w.probed, want) {
					t.Errorf("it is kept alive by %+v", w.probed)
				}
			},
		},
	}
}

// TestParityOfConnections holds the fields that are about connections to what they are
// about calls: each row is applied through the control plane, and its connections are
// made with [mesh.Mesh.Dial] to servers of [mesh.Mesh.ListenTCP].
func TestParityOfConnections(t *testing.T) {
	t.Parallel()
	rows := streamRows()
	for i := range rows {
		t.Run(rows[i].name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { rows[i].run(t, newStreamWorld(t, &rows[i])) })
		})
	}
}

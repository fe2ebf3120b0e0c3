package mesh_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/outcome"
)

func streamBalancingRows() []streamRow {
	const detection = "baseEjectionTime: 1m, interval: 10s, maxEjectionPercent: 100"
	ejects := func(name, fields, reason string) streamRow {
		return streamRow{
			name: "outlierDetection." + name, documents: streamRule("loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {" + fields + ", " + detection + "}"),
			run: func(t *testing.T, w *streamWorld) {
				w.ledgers[0].Kill()
				for range 12 {
					// Who is refused goes on to the other, and for a while nobody tries again.
					if got := w.counts(t, 1); got["v2"] != 1 {
						t.Errorf("greeted by %v", got)
					}
					time.Sleep(3 * time.Second)
				}
				w.mu.Lock()
				ejected, tried := slices.Clone(w.ejected), len(w.opened)
				w.mu.Unlock()
				if want := []string{reason}; !slices.Equal(ejected, want) {
					t.Errorf("ejected because of %q, want %q", ejected, want)
				}
				if failed := tried - 12; failed != 2 {
					t.Errorf("%d connections failed, want the 2 that eject it", failed)
				}
				w.ledgers[0].Restart()
				time.Sleep(75 * time.Second)
				if got := w.counts(t, 12); got["v1"] != 6 {
					t.Errorf("after a minute greeted by %v", got)
				}
			},
		}
	}
	greetedBy := func(name, policy string, instances [][]meshtest.Option, n int, want map[string]int) streamRow {
		return streamRow{
			name: "loadBalancer." + name, documents: streamRule("outlierDetection: {consecutive5xxErrors: 5}, loadBalancer: {" + policy + "}"), instances: instances,
			run: func(t *testing.T, w *streamWorld) {
				if got := w.counts(t, n); !maps.Equal(got, want) {
					t.Errorf("greeted by %v, want %v", got, want)
				}
			},
		}
	}
	at := func(localities ...string) (instances [][]meshtest.Option) {
		for _, locality := range localities {
			instances = append(instances, []meshtest.Option{meshtest.Locality(locality)})
		}
		return instances
	}
	labeled := [][]meshtest.Option{{meshtest.Labels(map[string]string{"tier": "tin"})}, {meshtest.Labels(map[string]string{"tier": "gold"})}}
	return []streamRow{
		ejects("consecutive5xxErrors", "consecutive5xxErrors: 2", "consecutive-5xx"),
		ejects("consecutiveGatewayErrors", "consecutive5xxErrors: 0, consecutiveGatewayErrors: 2", "consecutive-gateway-failure"),
		ejects("consecutiveLocalOriginFailures", "consecutive5xxErrors: 0, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2", "consecutive-local-origin-failure"),
		greetedBy("simple ROUND_ROBIN", "simple: ROUND_ROBIN", nil, 12, map[string]int{"v1": 6, "v2": 6}),
		{
			name: "loadBalancer.simple LEAST_REQUEST", documents: streamRule("loadBalancer: {simple: LEAST_REQUEST}"),
			run: func(t *testing.T, w *streamWorld) {
				// What is open is under way: as many with each.
				counts := make(map[string]int)
				for range 12 {
					_, instance, err := w.dial(t, w.customer, "5432")
					if err != nil {
						t.Fatal(err)
					}
					counts[instance]++
				}
				if counts["v1"] != 6 || counts["v2"] != 6 {
					t.Errorf("greeted by %v", counts)
				}
			},
		},
		{
			name: "loadBalancer.consistentHash.useSourceIp", documents: streamRule("loadBalancer: {consistentHash: {useSourceIp: true}}"),
			run: func(t *testing.T, w *streamWorld) {
				if got := w.counts(t, 24); len(got) != 1 {
					t.Errorf("one customer was greeted by %v", got)
				}
			},
		},
		greetedBy("localityLbSetting", "simple: ROUND_ROBIN, localityLbSetting: {enabled: true}", at("r2/z1", "r1/z1"), 6, map[string]int{"v2": 6}),
		greetedBy("localityLbSetting.enabled: false", "simple: ROUND_ROBIN, localityLbSetting: {enabled: false}", at("r2/z1", "r1/z1"), 6, map[string]int{"v1": 3, "v2": 3}),
		greetedBy("localityLbSetting.failover", "simple: ROUND_ROBIN, localityLbSetting: {failover: [{from: r1, to: r3}]}", at("r2/z1", "r3/z1"), 6, map[string]int{"v2": 6}),
		greetedBy("localityLbSetting.failoverPriority", "simple: ROUND_ROBIN, localityLbSetting: {failoverPriority: [tier]}", labeled, 6, map[string]int{"v2": 6}),
		greetedBy("localityLbSetting.distribute", `simple: ROUND_ROBIN, localityLbSetting: {distribute: [{from: "r1/*", to: {"r2/*": 100}}]}`, at("r1/z1", "r2/z1"), 6, map[string]int{"v2": 6}),
	}
}

func streamTLSRows() []streamRow {
	const (
		right = `subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/ledger"]`
		wrong = `subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/payment"]`
	)
	// connects expects a connection, with mutual TLS or without; id is nobody's if it is "".
	connects := func(secure bool) func(t *testing.T, w *streamWorld) {
		return func(t *testing.T, w *streamWorld) {
			if !secure { // a ledger that takes both waits for who speaks first
				conn, err := w.customer.Dial(t.Context(), "tcp", ledgerHost)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, "hello"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(conn, make([]byte, 7)); err != nil {
					t.Fatal(err)
				}
			} else if _, _, err := w.dial(t, w.customer, "5432"); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if e := w.opened[len(w.opened)-1]; e.TLS != secure || (e.PeerID == "spiffe://cluster.local/ns/shop/sa/ledger") != secure {
				t.Errorf("the connection: %+v", e)
			}
		}
	}
	refused := func(t *testing.T, w *streamWorld) {
		_, _, err := w.dial(t, w.customer, "5432")
		if failure, ok := errors.AsType[*mesh.Error](err); !ok || failure.Kind != outcome.ConnectFailure {
			t.Errorf("got %v", err)
		}
	}
	// strict expects that a stranger in the clear, who speaks first, gets through or not.
	plain := func(first, second bool) func(t *testing.T, w *streamWorld) {
		return func(t *testing.T, w *streamWorld) {
			for port, want := range map[string]bool{"5432": first, "5433": second} {
				conn, err := w.DialContext(t.Context(), "tcp", "ledger.shop:"+port)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				_, _ = io.WriteString(conn, "hello")
				_, err = io.ReadFull(conn, make([]byte, 7)) // its greeting, and the echo
				_ = conn.Close()
				if got := err == nil; got != want {
					t.Errorf("port %s: let in %t, want %t: %v", port, got, want, err)
				}
				if _, _, err := w.dial(t, w.customer, port); err != nil {
					t.Errorf("port %s: a member: %v", port, err)
				}
			}
		}
	}
	peers := func(spec string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: " + spec + "\n"
	}
	app := [][]meshtest.Option{{meshtest.Labels(map[string]string{"app": "ledger"})}}
	return []streamRow{
		{name: "tls of none is mutual", run: connects(true)},
		{name: "tls.mode ISTIO_MUTUAL", documents: streamRule("tls: {mode: ISTIO_MUTUAL}"), run: connects(true)},
		{name: "tls.mode DISABLE", documents: streamRule("tls: {mode: DISABLE}"), run: connects(false)},
		{name: "tls.mode SIMPLE, to a ledger that the system's roots do not know", documents: streamRule("tls: {mode: SIMPLE}"), run: refused},
		{name: "tls.credentialName for MUTUAL", documents: streamRule("tls: {mode: MUTUAL, credentialName: default, " + right + "}"), run: connects(true)},
		{name: "tls.subjectAltNames with the ledger's", documents: streamRule("tls: {mode: ISTIO_MUTUAL, " + right + "}"), run: connects(true)},
		{name: "tls.subjectAltNames without the ledger's", documents: streamRule("tls: {mode: ISTIO_MUTUAL, " + wrong + "}"), run: refused},
		{
			name: "tls.sni", documents: streamRule("tls: {mode: ISTIO_MUTUAL, sni: sni.ledger}"), instances: oneLedger, customer: overOne(watched),
			run: func(t *testing.T, w *streamWorld) {
				connects(true)(t, w)
				w.mu.Lock()
				defer w.mu.Unlock()
				if !bytes.Contains(w.hello, []byte("sni.ledger")) {
					t.Error("no connection asked for the name")
				}
			},
		},
		{
			name:      "portLevelSettings",
			documents: streamRule("connectionPool: {tcp: {maxConnections: 7}}, portLevelSettings: [{port: {number: 5432}, tls: {mode: ISTIO_MUTUAL, " + wrong + "}, connectionPool: {tcp: {maxConnections: 1}}, loadBalancer: {simple: RANDOM}, outlierDetection: {interval: 1s}}]"),
			run: func(t *testing.T, w *streamWorld) {
				refused(t, w)
				for range 2 { // of another port
					if _, _, err := w.dial(t, w.customer, "5433"); err != nil {
						t.Error(err)
					}
				}
			},
		},
		{
			name: "subsets.trafficPolicy", documents: `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ledger, namespace: shop}
spec: {host: ledger, exportTo: ["."], subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ledger, namespace: shop}
spec: {hosts: [ledger], exportTo: ["."], tcp: [{route: [{destination: {host: ledger, subset: v1}}]}]}
`,
			run: func(t *testing.T, w *streamWorld) {
				if _, got, err := w.dial(t, w.customer, "5432"); got != "v1" {
					t.Errorf("%q greets: %v", got, err)
				}
				_, _, err := w.dial(t, w.customer, "5432")
				if failure, ok := errors.AsType[*mesh.Error](err); !ok || failure.Kind != outcome.Overflow {
					t.Errorf("a second connection: %v", err)
				}
			},
		},
		{name: "mtls.mode STRICT", documents: peers("{mtls: {mode: STRICT}}"), run: plain(false, false)},
		{name: "mtls.mode PERMISSIVE", documents: peers("{mtls: {mode: PERMISSIVE}}"), run: plain(true, true)},
		{name: "portLevelMtls", documents: peers("{selector: {matchLabels: {app: ledger}}, mtls: {mode: STRICT}, portLevelMtls: {5433: {mode: PERMISSIVE}}}"), instances: app, run: plain(false, true)},
		{name: "PeerAuthentication.selector of others", documents: peers("{selector: {matchLabels: {app: payment}}, mtls: {mode: STRICT}}"), instances: app, run: plain(true, true)},
		{
			name: "mtls.mode DISABLE", documents: peers("{mtls: {mode: DISABLE}}") + "---\n" + streamRule("tls: {mode: DISABLE}"),
			run: func(t *testing.T, w *streamWorld) {
				// Nobody has to speak first.
				if _, _, err := w.dial(t, w.customer, "5432"); err != nil {
					t.Error(err)
				}
			},
		},
	}
}

// streamPolicyRows are the fields of an AuthorizationPolicy that connections can meet or not;
// TestV11_PoliciesAboutConnections has what those about requests mean.
func streamPolicyRows() []streamRow {
	var rows []streamRow
	for _, tt := range []struct {
		name, spec     string
		customer, bank bool // who gets through to the first port
		second         bool // whether the customer does to the second
	}{
		{"action: DENY", `{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}`, false, true, false},
		{"selector", `{selector: {matchLabels: {app: ledger}}}`, false, false, false},
		{"source.principals", `{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}`, true, false, true},
		{"source.notPrincipals", `{rules: [{from: [{source: {notPrincipals: [cluster.local/ns/shop/sa/customer]}}]}]}`, false, true, false},
		{"source.namespaces", `{rules: [{from: [{source: {namespaces: [shop]}}]}]}`, true, false, true},
		{"source.notNamespaces", `{rules: [{from: [{source: {notNamespaces: [shop]}}]}]}`, false, true, false},
		{"source.serviceAccounts", `{rules: [{from: [{source: {serviceAccounts: [shop/customer]}}]}]}`, true, false, true},
		{"source.notServiceAccounts", `{rules: [{from: [{source: {notServiceAccounts: [shop/customer]}}]}]}`, false, true, false},
		{"source.trustDomains", `{rules: [{from: [{source: {trustDomains: [cluster.local]}}]}]}`, true, true, true},
		{"source.notTrustDomains", `{rules: [{from: [{source: {notTrustDomains: [cluster.local]}}]}]}`, false, false, false},
		{"source.ipBlocks", `{rules: [{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}]}`, false, false, false},
		{"source.notIpBlocks", `{rules: [{from: [{source: {notIpBlocks: [192.0.2.0/24]}}]}]}`, true, true, true},
		{"source.remoteIpBlocks", `{rules: [{from: [{source: {remoteIpBlocks: [192.0.2.0/24]}}]}]}`, false, false, false},
		{"source.notRemoteIpBlocks", `{rules: [{from: [{source: {notRemoteIpBlocks: [192.0.2.0/24]}}]}]}`, true, true, true},
		{"operation.ports", `{rules: [{to: [{operation: {ports: ["5433"]}}]}]}`, false, false, true},
		{"operation.notPorts", `{rules: [{to: [{operation: {notPorts: ["5433"]}}]}]}`, true, true, false},
		{"when.values", `{rules: [{when: [{key: source.principal, values: [cluster.local/ns/shop/sa/customer]}]}]}`, true, false, true},
		{"when.notValues", `{rules: [{when: [{key: destination.port, notValues: ["5433"]}]}]}`, true, true, false},
	} {
		rows = append(rows, streamRow{
			name: "AuthorizationPolicy." + tt.name, documents: ledgerPolicy(tt.spec), instances: [][]meshtest.Option{{meshtest.Labels(map[string]string{"app": "ledger"})}},
			run: func(t *testing.T, w *streamWorld) {
				for _, c := range []struct {
					name string
					who  *mesh.Mesh
					port string
					want bool
				}{
					{"the customer", w.customer, "5432", tt.customer},
					{"the customer at the second port", w.customer, "5433", tt.second},
					{"a customer of the bank", w.bank, "5432", tt.bank},
				} {
					var conn net.Conn
					conn, _, err := w.dial(t, c.who, c.port)
					if got := err == nil && echoesBack(conn); got != c.want {
						t.Errorf("%s: let in %t, want %t: %v", c.name, got, c.want, err)
					}
				}
			},
		})
	}
	return rows
}

package mesh_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/inboardmesh/inboard/outcome"
)

// parityPolicies are the PeerAuthentications of the payments that have one.
const parityPolicies = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {selector: {matchLabels: {app: strict}}, mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: port, namespace: shop}
spec:
  selector: {matchLabels: {app: port}}
  mtls: {mode: PERMISSIVE}
  portLevelMtls: {HTTP(port-a): {mode: STRICT}, GRPC(port-a): {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: plain, namespace: shop}
spec: {selector: {matchLabels: {app: plain}}, mtls: {mode: DISABLE}}
`

// mutual and plaintext are cases of a row that any call fulfils.
var (
	mutual      = []parityCase{{name: "is mutual TLS", want: answered, check: checkPeer(customerID)}}
	plaintext   = []parityCase{{name: "is plaintext", want: answered, check: checkPeer("")}}
	distrusting = []parityCase{{
		name: "the payment is not who it must be", want: failedBy(outcome.ConnectFailure, codes.Unavailable),
		check: func(t *testing.T, _ *parityProbe, r *parityResult) {
			if r.Arrivals != 0 {
				t.Errorf("it got the call")
			}
		},
	}}
)

// anonymous are endpoints that offer no mutual TLS.
var anonymous = []parityEndpoint{{instance: "v1-a", fields: "weight: 1"}}

const (
	rightName = `subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/other", "spiffe://cluster.local/ns/shop/sa/payment"]`
	wrongName = `subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/other"]`
)

func parityTLSRows() []parityRow {
	row := func(name, tls string, endpoints []parityEndpoint, cases []parityCase) parityRow {
		return parityRow{
			name: name, routes: noRetries + toAll, endpoints: endpoints,
			rule: "trafficPolicy: {tls: {" + tls + "}}", cases: cases,
		}
	}
	return []parityRow{
		{name: "tls of none is mutual if the endpoints offer it", cases: mutual},
		{name: "tls of none is plaintext if the endpoints do not offer more", endpoints: anonymous, cases: plaintext},
		{
			name: "tls of none is mutual to the endpoints that offer it, and plaintext to the others", routes: noRetries + toAll,
			endpoints: []parityEndpoint{{instance: "v1-a"}, {instance: "plain-a"}}, cases: []parityCase{{name: "is served by both", want: answered}},
		},
		{
			name: "labels[security.istio.io/tlsMode] offers mutual TLS", routes: noRetries + toAll,
			service: `subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/payment"]
endpoints: [{address: 127.0.0.1, ports: {http: HTTP(v1-a), http2: HTTP(v1-a), grpc: GRPC(v1-a)}, labels: {security.istio.io/tlsMode: istio}}]`,
			cases: mutual,
		},
		row("tls.mode ISTIO_MUTUAL", "mode: ISTIO_MUTUAL", nil, mutual),
		row("tls.credentialName for MUTUAL", `mode: MUTUAL, credentialName: default, subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/payment"]`, anonymous, mutual),
		row("tls.mode MUTUAL, to a service without the name", "mode: MUTUAL, credentialName: default", nil, distrusting),
		row("tls.mode SIMPLE, to a service that the system's roots do not know", "mode: SIMPLE", nil, distrusting),
		row("tls.mode DISABLE", "mode: DISABLE", nil, plaintext),
		row("tls.subjectAltNames with the payment's", "mode: ISTIO_MUTUAL, "+rightName, anonymous, mutual),
		row("tls.subjectAltNames without the payment's", "mode: ISTIO_MUTUAL, "+wrongName, nil, distrusting),
		{name: "ServiceEntry.subjectAltNames with the payment's", service: rightName, routes: noRetries + toAll, cases: mutual},
		{name: "ServiceEntry.subjectAltNames without the payment's", service: wrongName, routes: noRetries + toAll, cases: distrusting},
		{
			name: "endpoints.serviceAccount of another", routes: noRetries + toAll,
			endpoints: []parityEndpoint{{instance: "v1-a", fields: "serviceAccount: other"}}, cases: distrusting,
		},
		{
			name: "tls.sni", routes: noRetries + toAll, rule: "trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: sni.HOST}}",
			cases: []parityCase{{
				name: "is in the handshake", want: answered,
				check: func(t *testing.T, p *parityProbe, r *parityResult) {
					checkPeer(customerID)(t, p, r)
					if !p.world.greeted("sni." + p.host) {
						t.Error("no connection asked for the name")
					}
				},
			}},
		},
	}
}

// http1HasNoHandshake is why a connection that is closed at its first bytes is
// another failure for HTTP/1.1.
const http1HasNoHandshake = "HTTP/2 and gRPC greet the server before the first call, which is then certain not to have been sent; HTTP/1.1 sends the call at once"

func parityPeerRows() []parityRow {
	// plain is a row of which the payment refuses plaintext.
	plain := func(name, instance string) parityRow {
		return parityRow{
			name: name, routes: noRetries + toAll, rule: "trafficPolicy: {tls: {mode: DISABLE}}",
			endpoints: []parityEndpoint{{instance: instance}}, why: http1HasNoHandshake,
			run: func(t *testing.T, p *parityProbe) {
				kind := outcome.ConnectFailure
				if p.port == "80" {
					kind = outcome.Reset
				}
				r := p.call(t, parityCall{})
				failedBy(kind, codes.Unavailable).check(t, p.parityProtocol, r)
				if r.Arrivals != 0 {
					t.Error("the payment got the call")
				}
			},
		}
	}
	at := func(instance string) []parityEndpoint {
		return []parityEndpoint{{instance: instance}}
	}
	const mutualTLS = "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"
	return []parityRow{
		{name: "PeerAuthentication.mtls STRICT, mutual TLS", routes: noRetries + toAll, endpoints: at("strict-a"), cases: mutual},
		plain("PeerAuthentication.mtls STRICT, plaintext", "strict-a"),
		{name: "PeerAuthentication.mtls PERMISSIVE, mutual TLS", routes: noRetries + toAll, cases: mutual},
		{
			name: "PeerAuthentication.mtls PERMISSIVE, plaintext", routes: noRetries + toAll,
			rule: "trafficPolicy: {tls: {mode: DISABLE}}", cases: plaintext,
		},
		{name: "PeerAuthentication.mtls DISABLE, as clients see it", routes: noRetries + toAll, endpoints: at("plain-a"), cases: plaintext},
		{name: "PeerAuthentication.mtls DISABLE, mutual TLS", routes: noRetries + toAll, rule: mutualTLS, endpoints: at("plain-a"), cases: distrusting},
		{name: "PeerAuthentication.portLevelMtls STRICT, mutual TLS", routes: noRetries + toAll, endpoints: at("port-a"), cases: mutual},
		plain("PeerAuthentication.portLevelMtls STRICT, plaintext", "port-a"),
	}
}

package mesh_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
)

const aliasesOfTheTrustDomain = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomainAliases: [old.example]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: customers, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/customer]}}]}]}
`

// TestV21_AMemberIsTheSameUnderAnAlias of the trust domain, and nobody else is: the
// server's handshake and its policy say so, over HTTP/1.1, HTTP/2 and gRPC.
func TestV21_AMemberIsTheSameUnderAnAlias(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	w := worldtest.NewSignedBy(t, root, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(payment) + strictPayments + aliasesOfTheTrustDomain)
	awaitStrict(t, payment)
	as := func(id string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{root.Workload(t, id)}}
	}
	until(t, "the alias is known", func() bool {
		resp, err := strangerHTTP(t, payment.HTTP, as("spiffe://old.example/ns/shop/sa/customer"), false)
		return err == nil && resp.StatusCode == http.StatusOK
	})
	const refused = 0 // in the handshake
	for _, tt := range []struct {
		id   string
		want int
	}{
		{customerID, http.StatusOK},
		{"spiffe://old.example/ns/shop/sa/customer", http.StatusOK},
		{"spiffe://old.example/ns/shop/sa/auditor", http.StatusForbidden},
		{"spiffe://old.example/ns/bank/sa/customer", http.StatusForbidden},
		{"spiffe://old.example/x/ns/shop/sa/customer", http.StatusForbidden},
		{"spiffe://elsewhere.org/ns/shop/sa/customer", refused},
		{"spiffe://old.example.evil/ns/shop/sa/customer", refused},
		{"spiffe://evil-old.example/ns/shop/sa/customer", refused},
		{"spiffe://cluster.local.old.example/ns/shop/sa/customer", refused},
	} {
		for _, http2 := range []bool{false, true} {
			got := refused
			if resp, err := strangerHTTP(t, payment.HTTP, as(tt.id), http2); err == nil {
				got = resp.StatusCode
			}
			if got != tt.want {
				t.Errorf("%s, HTTP/2 %t: %d, want %d", tt.id, http2, got, tt.want)
			}
		}
		want := map[int]codes.Code{http.StatusOK: codes.OK, http.StatusForbidden: codes.PermissionDenied, refused: codes.Unavailable}[tt.want]
		if err := strangerGRPC(t, payment.GRPC, as(tt.id)); status.Code(err) != want && (tt.want != refused || status.Code(err) != codes.DeadlineExceeded) {
			t.Errorf("%s, gRPC: %v, want %v", tt.id, err, want)
		}
	}
}

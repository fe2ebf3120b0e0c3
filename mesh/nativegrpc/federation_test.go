package nativegrpc_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestBS2_AGuestKnowsTrustDomainsByTheirOwnRoots: a native client and a native server
// of two trust domains work together where each has the roots of the other (gRFC A87).
// A root vouches for the names of its trust domain and for no others. Beside that the
// control plane says whose members are served, as for the mesh's own servers (D11).
func TestBS2_AGuestKnowsTrustDomainsByTheirOwnRoots(t *testing.T) {
	t.Parallel()
	root, partner := tlstest.NewCA(t), tlstest.NewCA(t)
	w := worldtest.NewSignedBy(t, root, "")
	identity := func(id string, issuer, own *tlstest.CA, federated map[string][]*x509.Certificate) *meshtls.Identity {
		t.Helper()
		i, err := meshtls.NewIdentity(issuer.Workload(t, id), []*x509.Certificate{own.Certificate})
		if err != nil {
			t.Fatal(err)
		}
		return i.WithFederated(federated)
	}
	const partnerID, strangerID = "spiffe://partner.example/ns/shop/sa/customer", "spiffe://stranger.example/ns/shop/sa/customer"
	here := map[string][]*x509.Certificate{"cluster.local": {root.Certificate}}
	there := map[string][]*x509.Certificate{"partner.example": {partner.Certificate}}
	nobody := map[string][]*x509.Certificate{}
	serves, calls := identity(paymentID, root, root, there), identity(partnerID, partner, partner, here)

	server, client := meshtls.NewStatic(serves), meshtls.NewStatic(calls)
	payment := newNative(t, w, "a", mesh.WithIdentity("default", server))
	w.Apply(servers(payment) + strict + `---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomainAliases: [partner.example]"}
`)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	guest, err := nativegrpc.New(w.Join("shop", "customer", nil, mesh.WithIdentity("default", client)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		client, server *meshtls.Identity
		caller         string // who is answered; "" is nobody
		refusal        string // of the client; a server tells its callers nothing
	}{
		{"each has the roots of the other", calls, serves, partnerID, ""},
		{"the own trust domain goes on", identity(customerID, root, root, there), serves, customerID, ""},
		{"the server federates with nobody", calls, identity(paymentID, root, root, nobody), "", ""},
		{"the client federates with nobody", identity(partnerID, partner, partner, nobody), serves, "", "no bundle found for peer certificates trust domain"},
		{"the client has other roots for the server's", identity(partnerID, partner, partner, map[string][]*x509.Certificate{"cluster.local": {partner.Certificate}}), serves, "", "unknown authority"},
		{"a caller of a third trust domain, by a root that is known", identity(strangerID, partner, partner, here), serves, "", ""},
		{"a caller of the own trust domain, by the root of another", identity(customerID, partner, root, nobody), serves, "", ""},
	} {
		client.Set(tt.client)
		server.Set(tt.server)
		before := payment.calls.Load()
		response, err := call(deadline(t), dial(t, guest, target))
		switch {
		case tt.caller != "":
			if err != nil || response.GetUsername() != tt.caller {
				t.Errorf("%s: %q, %v", tt.name, response.GetUsername(), err)
			}
		case status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), tt.refusal):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.refusal)
		case payment.calls.Load() != before:
			t.Errorf("%s: the server has answered", tt.name)
		}
	}
}

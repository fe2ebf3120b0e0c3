package nativegrpc_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/internal/worldtest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/nativegrpc"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestARotationReachesTheNextConnection: on both sides, without a failed call on
// those that are open, also when the roots change. An identity that grpc-go cannot
// hold to is told to whoever calls.
func TestARotationReachesTheNextConnection(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	w := worldtest.NewSignedBy(t, root, "")
	issue := func(account string, from *tlstest.CA, roots ...*x509.Certificate) *meshtls.Identity {
		t.Helper()
		identity, err := meshtls.NewIdentity(from.Workload(t, "spiffe://cluster.local/ns/shop/sa/"+account), roots)
		if err != nil {
			t.Fatal(err)
		}
		return identity
	}
	serial := func(i *meshtls.Identity) string {
		t.Helper()
		leaf, err := x509.ParseCertificate(i.Certificate.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	theirs, ours := issue("payment", root, root.Certificate), issue("customer", root, root.Certificate)
	server, client := meshtls.NewStatic(theirs), meshtls.NewStatic(ours)
	payment := newNative(t, w, "a", mesh.WithIdentity("default", server))
	w.Apply(servers(payment) + strict)
	if err := payment.awaitMode(t, connectivity.ServingModeServing); err != nil {
		t.Fatal(err)
	}
	guest, err := nativegrpc.New(w.Join("shop", "customer", nil, mesh.WithIdentity("default", client)))
	if err != nil {
		t.Fatal(err)
	}
	works := func(what string, conn *grpc.ClientConn, server, client *meshtls.Identity) {
		t.Helper()
		var at peer.Peer
		response, err := grpc_testing.NewTestServiceClient(conn).UnaryCall(deadline(t), &grpc_testing.SimpleRequest{}, grpc.Peer(&at))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		info, ok := at.AuthInfo.(credentials.TLSInfo)
		if !ok {
			t.Fatalf("%s: %T", what, at.AuthInfo)
		}
		if got := info.State.PeerCertificates[0].SerialNumber.String(); got != serial(server) || response.GetServerId() != serial(client) {
			t.Errorf("%s: the certificates are %s and %s, want %s and %s", what, got, response.GetServerId(), serial(server), serial(client))
		}
	}
	first := dial(t, guest, target)
	works("the first connection", first, theirs, ours)

	nextTheirs, nextOurs := issue("payment", root, root.Certificate), issue("customer", root, root.Certificate)
	server.Set(nextTheirs)
	client.Set(nextOurs)
	second := dial(t, guest, target)
	works("the second connection", second, nextTheirs, nextOurs)
	works("the first connection, after the rotation", first, theirs, ours)

	// Another root: first both are trusted, then certificates are of the new one.
	other := tlstest.NewCA(t)
	server.Set(issue("payment", root, root.Certificate, other.Certificate))
	client.Set(issue("customer", root, root.Certificate, other.Certificate))
	lastTheirs, lastOurs := issue("payment", other, root.Certificate, other.Certificate), issue("customer", other, root.Certificate, other.Certificate)
	server.Set(lastTheirs)
	client.Set(lastOurs)
	third := dial(t, guest, target)
	works("a connection of the next root", third, lastTheirs, lastOurs)

	client.Set(withdrawing(lastOurs))
	_, err = call(deadline(t), dial(t, guest, target))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificates that were withdrawn are not supported") {
		t.Errorf("withdrawn: %v", err)
	}
	works("the first connection, at last", first, theirs, ours)
}

func withdrawing(i *meshtls.Identity) *meshtls.Identity {
	other := *i
	other.Revocation = &meshtls.Revocation{}
	return &other
}

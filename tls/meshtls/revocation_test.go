package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

func lists(t *testing.T, ders ...[]byte) []*x509.RevocationList {
	t.Helper()
	var all []*x509.RevocationList
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list)
	}
	return all
}

func revocation(t *testing.T, leafOnly bool, ders ...[]byte) *meshtls.Revocation {
	t.Helper()
	r, err := meshtls.NewRevocation(lists(t, ders...), leafOnly)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRevocationListsAreHeldAgainstTheChain(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	issuer := root.Intermediate(t)
	stranger := tlstest.NewCA(t)
	cert := issuer.Workload(t, paymentID)
	leaf, intermediate := cert.Certificate[0], issuer.Certificate.Raw
	late := func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	early := func(l *x509.RevocationList) { l.ThisUpdate = time.Now().Add(time.Minute) }
	tests := []struct {
		name     string
		leafOnly bool
		lists    [][]byte
		want     string // "" is allowed
	}{
		{"no list", false, nil, ""},
		{"no list, for the leaf", true, nil, ""},
		{"lists of all that name nobody", false, [][]byte{root.CRL(t, nil), issuer.CRL(t, nil)}, ""},
		{"the leaf is named", false, [][]byte{root.CRL(t, nil), issuer.CRL(t, nil, leaf)}, "certificate was revoked: serial number "},
		{"the intermediate is named", false, [][]byte{root.CRL(t, nil, intermediate), issuer.CRL(t, nil)}, "certificate was revoked: serial number "},
		{"another certificate is named", false, [][]byte{root.CRL(t, nil), issuer.CRL(t, nil, issuer.Workload(t, paymentID).Certificate[0])}, ""},
		{"the intermediate's issuer has no list", false, [][]byte{issuer.CRL(t, nil)}, `revocation list of issuer "CN=test root": there is none`},
		{"the leaf's issuer has no list", false, [][]byte{root.CRL(t, nil)}, `revocation list of issuer "CN=test intermediate": there is none`},
		{"the leaf alone counts", true, [][]byte{issuer.CRL(t, nil)}, ""},
		{"the leaf alone counts, and is named", true, [][]byte{issuer.CRL(t, nil, leaf)}, "certificate was revoked"},
		{"the leaf alone counts, and its issuer has no list", true, [][]byte{root.CRL(t, nil)}, "there is none"},
		{"the list is too old", true, [][]byte{issuer.CRL(t, late)}, "its successor was due at"},
		{"the list is too old, and there is a newer one", true, [][]byte{issuer.CRL(t, late), issuer.CRL(t, nil)}, ""},
		{"the list is too old and names the leaf", true, [][]byte{issuer.CRL(t, late, leaf), issuer.CRL(t, nil)}, "certificate was revoked"},
		{"the list is for tomorrow", true, [][]byte{issuer.CRL(t, early)}, "it is not valid before"},
		{"a list of the same name by somebody else", true, [][]byte{stranger.Intermediate(t).CRL(t, nil)}, "it is signed by somebody else"},
		{"a list of the same name by somebody else, beside the own", true, [][]byte{stranger.Intermediate(t).CRL(t, nil, leaf), issuer.CRL(t, nil)}, ""},
		{"removed from the list again, which is for changes only", true, [][]byte{issuer.CRL(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ReasonCode = 8
		}, leaf)}, "certificate was revoked"},
		{"on hold", true, [][]byte{issuer.CRL(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ReasonCode = 6
		}, leaf)}, "certificate was revoked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := revocation(t, tt.leafOnly, tt.lists...)
			own := identity(t, root.Workload(t, customerID), root)
			peer := &tls.Config{Certificates: []tls.Certificate{cert}}
			// In the settings of the connection, and beside the roots.
			for name, config := range map[string]*tls.Config{
				"settings": clientConfig(t, meshtls.ClientParams{
					Identity: meshtls.NewStatic(own), Roots: meshtls.NewStatic(own), Authorize: meshtls.AuthorizeAny(), Revocation: r,
				}),
				"roots": clientConfig(t, meshtls.ClientParams{
					Identity: meshtls.NewStatic(own), Roots: meshtls.NewStatic(own.WithRevocation(r)), Authorize: meshtls.AuthorizeAny(),
				}),
			} {
				checkRevoked(t, "client, "+name, connect(config, peer).client, tt.want)
			}
			server := serverConfig(t, meshtls.ServerParams{
				Identity: meshtls.NewStatic(own), Roots: meshtls.NewStatic(own), Authorize: meshtls.AuthorizeAny(),
				RequireClientCertificate: true, Revocation: r,
			})
			client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}}
			checkRevoked(t, "server", connect(client, server).server, tt.want)
		})
	}
}

// TestAListIsItsIssuersHoweverOftenItIsAsked: what is remembered of a signature is for
// the authority that made it, and not for another of the same name.
func TestAListIsItsIssuersHoweverOftenItIsAsked(t *testing.T) {
	t.Parallel()
	root := tlstest.NewCA(t)
	before, after := root.Intermediate(t), root.Intermediate(t) // a CA that has changed its key
	old, renewed := before.Workload(t, paymentID), after.Workload(t, paymentID)
	r := revocation(t, true, before.CRL(t, nil, old.Certificate[0]), after.CRL(t, nil))
	own := identity(t, root.Workload(t, customerID), root)
	client := clientConfig(t, meshtls.ClientParams{
		Identity: meshtls.NewStatic(own), Roots: meshtls.NewStatic(own.WithRevocation(r)), Authorize: meshtls.AuthorizeAny(),
	})
	third := root.Intermediate(t).Workload(t, paymentID)
	for range 3 {
		checkRevoked(t, "the old key", connect(client, &tls.Config{Certificates: []tls.Certificate{old}}).client, "certificate was revoked")
		checkRevoked(t, "the new key", connect(client, &tls.Config{Certificates: []tls.Certificate{renewed}}).client, "")
		checkRevoked(t, "a key without a list", connect(client, &tls.Config{Certificates: []tls.Certificate{third}}).client, "it is signed by somebody else")
	}
}

func checkRevoked(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if reason(err) != meshtls.Revoked || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v, want a refusal for %q", what, err, want)
	}
}

func TestRevocationListsThatMeanMoreAreRefused(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	leaf := ca.Workload(t, paymentID).Certificate[0]
	critical := []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
	for name, edit := range map[string]func(*x509.RevocationList){
		"has the critical extension 2.5.29.28": func(l *x509.RevocationList) { l.ExtraExtensions = critical },
		"has the extension 2.5.29.28: is a part of a list": func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Value: []byte{0x30, 0}}}
		},
		"has the extension 2.5.29.27: is a part of a list": func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Value: []byte{2, 1, 1}}}
		},
		"entry 1 has the critical extension 2.5.29.28": func(l *x509.RevocationList) {
			l.RevokedCertificateEntries[0].ExtraExtensions = critical
		},
	} {
		_, err := meshtls.NewRevocation(lists(t, ca.CRL(t, edit, leaf)), false)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want %q", err, name)
		}
	}
	_, err := meshtls.NewRevocation([]*x509.RevocationList{{}}, false)
	if err == nil || !strings.Contains(err.Error(), "does not say when the next one is due") {
		t.Errorf("error %v", err)
	}
}

// TestBS2_ABundleVerifiesItsOwnTrustDomain: the map has the roots of two, and each
// vouches for its own members only.
func TestBS2_ABundleVerifiesItsOwnTrustDomain(t *testing.T) {
	t.Parallel()
	here, there := tlstest.NewCA(t), tlstest.NewCA(t)
	bundles, err := meshtls.NewBundles(map[string][]*x509.Certificate{
		"cluster.local": {here.Certificate}, "elsewhere.org": {there.Certificate},
	})
	if err != nil {
		t.Fatal(err)
	}
	client := clientConfig(t, meshtls.ClientParams{Roots: meshtls.NewStatic(bundles), Authorize: meshtls.AuthorizeAny()})
	const abroad = "spiffe://elsewhere.org/ns/shop/sa/payment"
	for _, tt := range []struct {
		name string
		cert tls.Certificate
		want meshtls.Reason
	}{
		{"a member of the first", here.Workload(t, paymentID), 0},
		{"a member of the second", there.Workload(t, abroad), 0},
		{"the first's root for the second", here.Workload(t, abroad), meshtls.UnknownAuthority},
		{"the second's root for the first", there.Workload(t, paymentID), meshtls.UnknownAuthority},
		{"a third", here.Workload(t, "spiffe://third.org/a"), meshtls.UnknownAuthority},
		{"no SPIFFE ID", here.Issue(t, tlstest.Leaf{DNSNames: []string{"payment"}}), meshtls.UnknownAuthority},
	} {
		if err := connect(client, &tls.Config{Certificates: []tls.Certificate{tt.cert}}).client; reason(err) != tt.want || (err == nil) != (tt.want == 0) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := meshtls.NewBundles(map[string][]*x509.Certificate{"": {here.Certificate}}); err == nil {
		t.Error("a bundle of no trust domain is accepted")
	}
}

// TestBS2_AnEmptyBundleMapTrustsNobody: nor does an empty bundle trust its own trust
// domain, and none of them is taken for the operating system's roots.
func TestBS2_AnEmptyBundleMapTrustsNobody(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	keys := make(map[string]bool)
	for name, roots := range map[string]map[string][]*x509.Certificate{
		"nil": nil, "an empty map": {}, "an empty bundle": {"cluster.local": {}}, "another's bundle": {"elsewhere.org": {ca.Certificate}},
	} {
		bundles, err := meshtls.NewBundles(roots)
		if err != nil || bundles.Bundles() == nil || bundles.RootsKey == "" {
			t.Fatalf("%s: %v, %v", name, bundles, err)
		}
		keys[bundles.RootsKey] = true
		client := clientConfig(t, meshtls.ClientParams{Roots: meshtls.NewStatic(bundles), Authorize: meshtls.AuthorizeAny()})
		for _, cert := range []tls.Certificate{ca.Workload(t, paymentID), ca.Issue(t, tlstest.Leaf{DNSNames: []string{"payment"}})} {
			if err := connect(client, &tls.Config{Certificates: []tls.Certificate{cert}}).client; reason(err) != meshtls.UnknownAuthority {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(keys) != 2 {
		t.Errorf("%d keys: connections of before would stay, or be cut for nothing", len(keys))
	}
}

func TestACertificateForTheOutsideNeedsNoID(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	identity, err := meshtls.NewOutside(ca.Issue(t, tlstest.Leaf{DNSNames: []string{"shop"}}))
	if err != nil || !identity.ID.IsZero() || identity.NotAfter.IsZero() || identity.Roots != nil {
		t.Errorf("%v, %v", identity, err)
	}
	if _, err := meshtls.NewIdentity(identity.Certificate, nil); err == nil {
		t.Error("a member without an ID is accepted")
	}
	if member, err := meshtls.NewOutside(ca.Workload(t, paymentID)); err != nil || member.ID.String() != paymentID {
		t.Errorf("%v, %v", member, err)
	}
	if own := meshtls.AuthorizeOwnTrustDomain(meshtls.NewStatic(identity)); own(meshtls.MustID(paymentID), nil) == nil {
		t.Error("who has no trust domain has members of it")
	}
}

// BenchmarkRevocation verifies a peer without a list, and with one of 100,000 names.
func BenchmarkRevocation(b *testing.B) {
	ca := tlstest.NewCA(b)
	list, err := x509.ParseRevocationList(ca.CRL(b, func(l *x509.RevocationList) {
		for i := range int64(100_000) {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: new(big.Int).Lsh(big.NewInt(i+1), 100), RevocationTime: time.Now(),
			})
		}
	}))
	if err != nil {
		b.Fatal(err)
	}
	large, err := meshtls.NewRevocation([]*x509.RevocationList{list}, false)
	if err != nil {
		b.Fatal(err)
	}
	own, err := meshtls.NewIdentity(ca.Workload(b, paymentID), certificates([]*tlstest.CA{ca}))
	if err != nil {
		b.Fatal(err)
	}
	peer := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leafOfChain(b, ca.Workload(b, customerID))}}
	for _, tt := range []struct {
		name string
		list *meshtls.Revocation
	}{{"none", nil}, {"large", large}} {
		b.Run(tt.name, func(b *testing.B) {
			config, err := meshtls.ServerConfig(meshtls.ServerParams{
				Identity: meshtls.NewStatic(own), Roots: meshtls.NewStatic(own), Authorize: meshtls.AuthorizeAny(),
				RequireClientCertificate: true, Revocation: tt.list,
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := config.VerifyConnection(peer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func leafOfChain(b *testing.B, cert tls.Certificate) *x509.Certificate {
	b.Helper()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		b.Fatal(err)
	}
	return leaf
}

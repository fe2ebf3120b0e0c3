package istioca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/tlstest"
)

const workloadID = "spiffe://cluster.local/ns/shop/sa/payment"

func TestAReplyThatPeersWouldRefuseIsRefused(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	intermediate := ca.Intermediate(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uris := []string{workloadID}
	sign := func(leaf tlstest.Leaf) string {
		return string(tlstest.CertificatePEM(ca.Sign(t, leaf, key.Public())...))
	}
	good := sign(tlstest.Leaf{URIs: uris})
	root := string(tlstest.CertificatePEM(ca.Certificate.Raw))
	chain := intermediate.Sign(t, tlstest.Leaf{URIs: uris}, key.Public())
	leafPEM, intermediatePEM := string(tlstest.CertificatePEM(chain[0])), string(tlstest.CertificatePEM(chain[1]))
	tests := []struct {
		name  string
		reply []string
		want  string // "" for a good one
	}{
		{"the certificate and the root", []string{good, root}, ""},
		{"an intermediate of its own", []string{leafPEM, intermediatePEM, root}, ""},
		{"an intermediate beside the leaf", []string{leafPEM + intermediatePEM, root}, ""},
		{"several roots", []string{good, string(tlstest.CertificatePEM(other.Certificate.Raw)) + root}, ""},
		{"nothing", nil, "reply has 0 elements: want the certificate first and the root last"},
		{"the certificate alone", []string{good}, "reply has 1 elements"},
		{"no PEM", []string{"junk", root}, "reply: certificate 0: text that is not PEM"},
		{"text behind the certificate", []string{good + "junk", root}, "reply: certificate 0: text that is not PEM"},
		{"an empty element", []string{good, "", root}, "reply: certificate 1: no certificate"},
		{"an empty root", []string{good, ""}, "reply: root: no certificate"},
		{"a key", []string{good, string(tlstest.KeyPEM(t, ca.Workload(t, workloadID)))}, `reply: root: PEM block of type "PRIVATE KEY": want CERTIFICATE`},
		{"PEM of junk", []string{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", root}, "reply: certificate 0: x509"},
		{"a certificate for another key", []string{string(tlstest.CertificatePEM(ca.Workload(t, workloadID).Certificate...)), root}, "private key does not belong to the certificate"},
		{"no SPIFFE ID", []string{sign(tlstest.Leaf{DNSNames: []string{"payment"}}), root}, "certificate has no URI SAN"},
		{"the wrong root", []string{good, string(tlstest.CertificatePEM(other.Certificate.Raw))}, "against the root that came with it: x509: certificate signed by unknown authority"},
		{"a missing intermediate", []string{leafPEM, root}, "against the root that came with it: x509: certificate signed by unknown authority"},
		{"an expired certificate", []string{sign(tlstest.Leaf{URIs: uris, NotAfter: now.Add(-time.Second)}), root}, "certificate has expired or is not yet valid"},
		{"a clock that differs", []string{sign(tlstest.Leaf{URIs: uris, NotBefore: now.Add(time.Minute)}), root}, "certificate has expired or is not yet valid"},
		{"a certificate for clients only", []string{sign(tlstest.Leaf{URIs: uris, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), root}, "incompatible key usage"},
		{"a certificate for servers only", []string{sign(tlstest.Leaf{URIs: uris, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), root}, "incompatible key usage"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			identity, err := identityOf(test.reply, key, now)
			if test.want == "" {
				if err != nil || identity.ID.String() != workloadID {
					t.Errorf("got %v, %v", identity, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || identity != nil {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	ca := tlstest.NewCA(f)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	leaf := string(tlstest.CertificatePEM(ca.Sign(f, tlstest.Leaf{URIs: []string{workloadID}}, key.Public())...))
	root := string(tlstest.CertificatePEM(ca.Certificate.Raw))
	f.Add(leaf, root)
	f.Add(leaf+root, root+root)
	f.Add("", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	f.Add("junk", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, first, last string) {
		identity, err := identityOf([]string{first, last}, key, time.Now())
		if err == nil && (identity.ID.IsZero() || identity.Roots == nil || identity.RootsKey == "") {
			t.Fatalf("got %+v without an error", identity)
		}
	})
}

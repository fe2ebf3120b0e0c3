package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "istio.io/api/security/v1alpha1"
)

const authFailed = "authentication failed"

func TestIdentityIsTheCallersAndNotTheRequests(t *testing.T) {
	t.Parallel()
	c := mustNew(t, Config{})
	network := serve(t, c)
	key := mustKey(t)
	token := "Bearer " + mustToken(t, c, "shop", "payment")

	chain, err := caller{tokens: []string{token}}.create(t, network, c.Roots(), &pb.IstioCertificateRequest{
		Csr: csrPEM(t, key, "spiffe://cluster.local/ns/shop/sa/admin", "spiffe://elsewhere/ns/a/sa/b"),
	})
	if err != nil {
		t.Fatal(err)
	}
	certs := parseChain(t, chain)
	if len(certs) != 2 {
		t.Fatalf("chain has %d certificates, want the leaf and the root", len(certs))
	}
	leaf := certs[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/shop/sa/payment" {
		t.Errorf("URI names %v, want the caller's", leaf.URIs)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || leaf.Subject.String() != "" || leaf.IsCA {
		t.Errorf("certificate has more than the identity: %v %v %v CA %t", leaf.DNSNames, leaf.IPAddresses, leaf.Subject, leaf.IsCA)
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
		t.Errorf("extended key usage %v, want server and client", leaf.ExtKeyUsage)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("certificate is for another key")
	}
	for _, usage := range leaf.ExtKeyUsage {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.Roots(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Error(err)
		}
	}
}

func TestCertificateRenewsItself(t *testing.T) {
	t.Parallel()
	c := mustNew(t, Config{})
	network := serve(t, c)
	key := mustKey(t)
	chain, err := caller{tokens: []string{"Bearer " + mustToken(t, c, "shop", "payment")}}.create(t, network, c.Roots(),
		&pb.IstioCertificateRequest{Csr: csrPEM(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	current := &tls.Certificate{Certificate: [][]byte{parseChain(t, chain)[0].Raw}, PrivateKey: key}

	// The token of somebody else beside it changes nothing.
	chain, err = caller{cert: current, tokens: []string{"Bearer " + mustToken(t, c, "shop", "admin")}}.create(t, network, c.Roots(),
		&pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	if got := parseChain(t, chain)[0].URIs[0].String(); got != "spiffe://cluster.local/ns/shop/sa/payment" {
		t.Errorf("renewed as %s", got)
	}
}

// leafFrom signs a certificate for any URI with the CA's own key.
func leafFrom(t *testing.T, c *CA, usage x509.ExtKeyUsage, uris ...string) *tls.Certificate {
	t.Helper()
	key := mustKey(t)
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	for _, text := range uris {
		uri, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, uri)
	}
	leaf, err := c.authority.Load().sign(template, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
}

func TestCallersWithoutProofAreRefused(t *testing.T) {
	t.Parallel()
	var logs logBuffer
	c := mustNew(t, Config{Logger: logs.logger()})
	network := serve(t, c)
	other := mustNew(t, Config{})
	good := mustToken(t, c, "shop", "payment")
	serverCert, err := c.ServerCertificate([]string{"ca.test"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	const payment = "spiffe://cluster.local/ns/shop/sa/payment"
	root := c.authority.Load().signer

	for _, tt := range []struct {
		name   string
		caller caller
		log    string
	}{
		{"no credentials", caller{}, "no credentials"},
		{"another scheme", caller{tokens: []string{"Basic " + good}}, "not a bearer token"},
		{"a bare token", caller{tokens: []string{good}}, "not a bearer token"},
		{"two tokens, both good", caller{tokens: []string{"Bearer " + good, "Bearer " + good}}, "2 authorization headers"},
		{"not a token", caller{tokens: []string{"Bearer junk"}}, "not a JWT signed with ES256"},
		{"an endless token", caller{tokens: []string{"Bearer " + strings.Repeat("a.", maxToken)}}, "longer than"},
		{"a token of another CA", caller{tokens: []string{"Bearer " + mustToken(t, other, "shop", "payment")}}, "not signed by this CA"},
		{"a certificate of another CA", caller{cert: leafFrom(t, other, x509.ExtKeyUsageClientAuth, payment)}, "unknown authority"},
		{"a certificate for servers only", caller{cert: leafFrom(t, c, x509.ExtKeyUsageServerAuth, payment)}, "incompatible key usage"},
		{"the control plane's own certificate", caller{cert: serverCert}, "incompatible key usage"},
		{"a certificate without a name", caller{cert: leafFrom(t, c, x509.ExtKeyUsageClientAuth)}, "0 URI names"},
		{"a certificate with two names", caller{cert: leafFrom(t, c, x509.ExtKeyUsageClientAuth, payment, payment)}, "2 URI names"},
		{"a name of another trust domain", caller{cert: leafFrom(t, c, x509.ExtKeyUsageClientAuth, "spiffe://other/ns/shop/sa/payment")}, "trust domain \\\"other\\\""},
		{"a name of another form", caller{cert: leafFrom(t, c, x509.ExtKeyUsageClientAuth, "spiffe://cluster.local/payment")}, "want spiffe://TRUST_DOMAIN/ns"},
		{"the CA's certificate", caller{cert: &tls.Certificate{Certificate: [][]byte{root.cert.Raw}, PrivateKey: root.key}}, "CA: true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.caller.create(t, network, c.Roots(), &pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t))})
			wantStatus(t, err, codes.Unauthenticated, authFailed)
			if !strings.Contains(logs.String(), tt.log) {
				t.Errorf("log lacks %q:\n%s", tt.log, logs.String())
			}
		})
	}
	if strings.Contains(logs.String(), good) {
		t.Error("the log holds a token")
	}
}

func TestCertificateOfAnotherCADoesNotSpoilAGoodToken(t *testing.T) {
	t.Parallel()
	c, other := mustNew(t, Config{}), mustNew(t, Config{})
	network := serve(t, c)
	foreign := leafFrom(t, other, x509.ExtKeyUsageClientAuth, "spiffe://cluster.local/ns/shop/sa/admin")
	chain, err := caller{cert: foreign, tokens: []string{"Bearer " + mustToken(t, c, "shop", "payment")}}.create(t, network, c.Roots(),
		&pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t))})
	if err != nil {
		t.Fatal(err)
	}
	if got := parseChain(t, chain)[0].URIs[0].String(); got != "spiffe://cluster.local/ns/shop/sa/payment" {
		t.Errorf("identity %s, want the token's", got)
	}
}

func TestPlaintextIsRefused(t *testing.T) {
	t.Parallel()
	c := mustNew(t, Config{})
	network := serveWith(t, c, insecure.NewCredentials())
	_, err := caller{plain: true, tokens: []string{"Bearer " + mustToken(t, c, "shop", "payment")}}.create(t, network, nil,
		&pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t))})
	wantStatus(t, err, codes.Unauthenticated, authFailed)
}

func TestProofsExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := mustNew(t, Config{MaxTTL: time.Hour})
		network := serve(t, c)
		token, err := c.IssueToken("shop", "payment", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		key := mustKey(t)
		request := &pb.IstioCertificateRequest{Csr: csrPEM(t, key)}
		chain, err := caller{tokens: []string{"bearer " + token}}.create(t, network, c.Roots(), request)
		if err != nil {
			t.Fatal(err)
		}
		cert := &tls.Certificate{Certificate: [][]byte{parseChain(t, chain)[0].Raw}, PrivateKey: key}

		time.Sleep(time.Minute)
		_, err = caller{tokens: []string{"Bearer " + token}}.create(t, network, c.Roots(), request)
		wantStatus(t, err, codes.Unauthenticated, authFailed)
		if _, err := (caller{cert: cert}).create(t, network, c.Roots(), request); err != nil {
			t.Errorf("certificate is refused before its end: %v", err)
		}

		time.Sleep(time.Hour)
		_, err = caller{cert: cert}.create(t, network, c.Roots(), request)
		wantStatus(t, err, codes.Unauthenticated, authFailed)
	})
}

func TestCertificateRequestsAreChecked(t *testing.T) {
	t.Parallel()
	rsaKey := func(bits int) crypto.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	ecKey := func(curve elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := csrPEM(t, mustKey(t))
	// The signature is the last thing in the encoding.
	lines := strings.Split(strings.TrimSpace(good), "\n")
	last := len(lines) - 2
	lines[last] = lines[last][:4] + strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		if r == '=' {
			return r
		}
		return 'A'
	}, lines[last][4:])

	for _, tt := range []struct {
		name, csr, want string
	}{
		{"P-256", good, ""},
		{"P-384", csrPEM(t, ecKey(elliptic.P384())), ""},
		{"RSA 2048", csrPEM(t, rsaKey(2048)), ""},
		{"Ed25519", csrPEM(t, edKey), ""},
		{"P-521", csrPEM(t, ecKey(elliptic.P521())), "want P-256 or P-384"},
		{"P-224", csrPEM(t, ecKey(elliptic.P224())), "want P-256 or P-384"},
		{"RSA 1024", csrPEM(t, rsaKey(1024)), "RSA key of 1024 bits: want 2048 to 4096"},
		{"nothing", "", "not PEM"},
		{"a certificate", strings.ReplaceAll(good, "CERTIFICATE REQUEST", "CERTIFICATE"), "not PEM of type CERTIFICATE REQUEST"},
		{"two requests", good + good, "followed by something else"},
		{"a truncated request", strings.Join(slices.Delete(slices.Clone(lines), 2, 3), "\n"), "cannot be read"},
		{"a broken signature", strings.Join(lines, "\n"), "not signed by its key"},
		{"a huge request", good + strings.Repeat("\n", maxCSR), "longer than 16384 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseCSR(tt.csr)
			if tt.want == "" && err != nil {
				t.Errorf("got %v, want no error", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestBadRequestsOfKnownCallersAreInvalid(t *testing.T) {
	t.Parallel()
	var logs logBuffer
	c := mustNew(t, Config{Logger: logs.logger()})
	network := serve(t, c)
	who := caller{tokens: []string{"Bearer " + mustToken(t, c, "shop", "payment")}}

	_, err := who.create(t, network, c.Roots(), &pb.IstioCertificateRequest{Csr: "junk"})
	wantStatus(t, err, codes.InvalidArgument, "certificate request is not acceptable")
	_, err = who.create(t, network, c.Roots(), &pb.IstioCertificateRequest{Csr: csrPEM(t, mustKey(t)), ValidityDuration: -1})
	wantStatus(t, err, codes.InvalidArgument, "validity duration is not acceptable")

	for _, want := range []string{"not PEM of type", "validity of -1 s", "identity=spiffe://cluster.local/ns/shop/sa/payment"} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, logs.String())
		}
	}
}

func TestLifetimeIsAtMostTheMaximum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := mustNew(t, Config{MaxTTL: 2 * time.Hour, TTL: time.Hour})
		for _, tt := range []struct {
			name    string
			seconds int64
			want    time.Duration
		}{
			{"none asked for", 0, time.Hour},
			{"a short one", 1, time.Second},
			{"between default and maximum", 5400, 90 * time.Minute},
			{"over the maximum", 7201, 2 * time.Hour},
			{"over what a duration can hold", math.MaxInt64, 2 * time.Hour},
		} {
			ttl, err := c.lifetime(tt.seconds)
			if err != nil || ttl != tt.want {
				t.Errorf("%s: got %v, %v; want %v", tt.name, ttl, err, tt.want)
			}
			id := Identity{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "b"}
			cert, err := c.issueIdentity(c.authority.Load(), mustKey(t).Public(), id, ttl)
			if err != nil {
				t.Fatal(err)
			}
			if got := time.Until(cert.NotAfter); got != tt.want {
				t.Errorf("%s: certificate ends in %v, want %v", tt.name, got, tt.want)
			}
		}
	})
}

func TestCertificateNeverOutlivesTheRoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs logBuffer
		c := mustNew(t, Config{Logger: logs.logger()})
		root := c.authority.Load().signer.cert
		token, err := c.IssueToken("shop", "payment", 2*rootLifetime)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(rootLifetime - time.Hour)
		cert, err := c.ServerCertificate([]string{"ca.test"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !cert.Leaf.NotAfter.Equal(root.NotAfter) {
			t.Errorf("certificate ends on %v, the root on %v", cert.Leaf.NotAfter, root.NotAfter)
		}
		time.Sleep(2 * time.Hour)
		if _, err := c.ServerCertificate([]string{"ca.test"}, 0); err == nil || !strings.Contains(err.Error(), "the CA's own certificate expired on") {
			t.Errorf("got %v", err)
		}
		if _, _, err := c.tokens.verify(token); err != nil {
			t.Error(err)
		}
	})
}

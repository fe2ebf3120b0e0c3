package arrival

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"maps"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// headers are those of a request, by their names in lower case.
type headers map[string][]string

func (h headers) Values(name string) []string { return h[strings.ToLower(name)] }
func (h headers) Set(name, value string)      { h[strings.ToLower(name)] = []string{value} }
func (h headers) Del(name string)             { delete(h, strings.ToLower(name)) }
func (h headers) Add(name, value string) {
	h[strings.ToLower(name)] = append(h[strings.ToLower(name)], value)
}

const (
	customerID = "spiffe://cluster.local/ns/shop/sa/customer"
	paymentID  = "spiffe://cluster.local/ns/shop/sa/payment"
	peerIP     = "10.0.0.9"
	peerAddr   = peerIP + ":41000"
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// TestBH1_TheClientsAddress: what a client has written itself never decides.
func TestBH1_TheClientsAddress(t *testing.T) {
	t.Parallel()
	const list = "1.1.1.1, 2.2.2.2, 3.3.3.3"
	tests := []struct {
		name     string
		config   discovery.Forwarding
		list     []string
		verified bool
		want     string
	}{
		{"nothing is said", discovery.Forwarding{}, []string{list}, true, peerAddr},
		{"the peer is the client", discovery.Forwarding{Client: discovery.ClientIsPeer}, []string{list}, true, peerAddr},
		{"forwarded by a member", discovery.Forwarding{Client: discovery.ClientIsForwarded}, []string{list}, true, "3.3.3.3"},
		{"forwarded by a stranger", discovery.Forwarding{Client: discovery.ClientIsForwarded}, []string{list}, false, peerAddr},
		{"one hop, the peer's address is added", discovery.Forwarding{Client: discovery.ClientIsPeer, Hops: 1}, []string{list}, false, "3.3.3.3"},
		{"two hops, the peer's address is added", discovery.Forwarding{Client: discovery.ClientIsPeer, Hops: 2}, []string{list}, false, "2.2.2.2"},
		{"one hop, it is not", discovery.Forwarding{Client: discovery.ClientIsForwarded, Hops: 1}, []string{list}, false, "2.2.2.2"},
		{"two hops, it is not", discovery.Forwarding{Hops: 2}, []string{list}, false, "1.1.1.1"},
		{"more hops than addresses", discovery.Forwarding{Hops: 3}, []string{list}, true, peerAddr},
		{"several headers are one list", discovery.Forwarding{Hops: 1}, []string{"1.1.1.1", "2.2.2.2,3.3.3.3"}, true, "2.2.2.2"},
		{"no address ends the list", discovery.Forwarding{Hops: 2}, []string{"1.1.1.1, unknown, 3.3.3.3"}, true, peerAddr},
		{"a port is no address", discovery.Forwarding{Hops: 1}, []string{"1.1.1.1:80, 3.3.3.3"}, true, peerAddr},
		{"an empty element is no address", discovery.Forwarding{Hops: 1}, []string{"1.1.1.1,,3.3.3.3"}, true, peerAddr},
		{"IPv6", discovery.Forwarding{Hops: 1}, []string{"2001:db8::1, 3.3.3.3"}, true, "2001:db8::1"},
		{"IPv4 in IPv6 is IPv4", discovery.Forwarding{Hops: 1}, []string{"::ffff:1.2.3.4, 3.3.3.3"}, true, "1.2.3.4"},
		{"a zone is no address", discovery.Forwarding{Hops: 1}, []string{"fe80::1%eth0, 3.3.3.3"}, true, peerAddr},
		{"behind trusted proxies", discovery.Forwarding{TrustedProxies: prefixes("10.0.0.0/8", "3.3.3.3/32")}, []string{list}, false, "2.2.2.2"},
		{"the peer is no trusted proxy", discovery.Forwarding{TrustedProxies: prefixes("3.3.3.3/32")}, []string{list}, false, peerAddr},
		{"all are trusted proxies", discovery.Forwarding{TrustedProxies: prefixes("0.0.0.0/0")}, []string{list}, false, "1.1.1.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := headers{forwardedFor: slices.Clone(tt.list)}
			got := Receive(&tt.config, h, &Peer{Address: peerAddr, Verified: tt.verified})
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestBH2_WhatTheApplicationIsToldOfTheClient(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		config   discovery.Forwarding
		verified bool
		secure   bool
		sent     headers
		want     headers
	}{
		{
			name: "nothing is said", verified: true,
			sent: headers{forwardedFor: {"1.1.1.1"}, forwardedProto: {"ftp"}}, want: headers{forwardedFor: {"1.1.1.1"}, forwardedProto: {"ftp"}},
		},
		{
			name: "a client at the edge", config: discovery.Forwarding{Client: discovery.ClientIsPeer}, secure: true,
			sent: headers{forwardedFor: {"1.1.1.1"}, forwardedProto: {"ftp"}, externalAddress: {"6.6.6.6"}, internalRequest: {"true"}},
			want: headers{forwardedFor: {"1.1.1.1," + peerIP}, forwardedProto: {"https"}, externalAddress: {peerIP}},
		},
		{
			name: "a client behind a proxy", config: discovery.Forwarding{Client: discovery.ClientIsPeer, Hops: 1},
			sent: headers{forwardedFor: {"1.1.1.1"}, forwardedProto: {"https"}},
			want: headers{forwardedFor: {"1.1.1.1," + peerIP}, forwardedProto: {"https"}, externalAddress: {"1.1.1.1"}},
		},
		{
			name:   "a client inside",
			config: discovery.Forwarding{Client: discovery.ClientIsPeer, Internal: prefixes("10.0.0.0/8")},
			sent:   headers{"x-envoy-ip-tags": {"vip"}},
			want:   headers{forwardedFor: {peerIP}, forwardedProto: {"http"}, internalRequest: {"true"}, "x-envoy-ip-tags": {"vip"}},
		},
		{
			name:   "a client that says that it came by way of the inside",
			config: discovery.Forwarding{Client: discovery.ClientIsPeer, Internal: prefixes("10.0.0.0/8")},
			sent:   headers{forwardedFor: {"10.0.0.1"}},
			want:   headers{forwardedFor: {"10.0.0.1," + peerIP}, forwardedProto: {"http"}, externalAddress: {peerIP}},
		},
		{
			name: "the address is not added", config: discovery.Forwarding{Client: discovery.ClientIsPeer, SkipAppend: true},
			sent: headers{}, want: headers{forwardedProto: {"http"}, externalAddress: {peerIP}},
		},
		{
			name: "a member forwards", config: discovery.Forwarding{Client: discovery.ClientIsForwarded}, verified: true, secure: true,
			sent: headers{forwardedFor: {"1.1.1.1"}}, want: headers{forwardedFor: {"1.1.1.1"}, forwardedProto: {"https"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := &Peer{Address: peerAddr, Verified: tt.verified}
			if tt.secure {
				peer.TLS = &tls.ConnectionState{}
			}
			h := maps.Clone(tt.sent)
			Receive(&tt.config, h, peer)
			if !maps.EqualFunc(h, tt.want, slices.Equal) {
				t.Errorf("got %v, want %v", h, tt.want)
			}
		})
	}
}

func TestBH2_RequestIDs(t *testing.T) {
	t.Parallel()
	uuid := regexp.MustCompile("^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
	tests := []struct {
		name   string
		config discovery.Forwarding
		sent   string
		fresh  bool
	}{
		{"none is asked for", discovery.Forwarding{}, "", false},
		{"one that is missing is made", discovery.Forwarding{RequestID: true}, "", true},
		{"one from inside is kept", discovery.Forwarding{RequestID: true}, "abc", false},
		{"one from outside is replaced", discovery.Forwarding{RequestID: true, Client: discovery.ClientIsPeer}, "abc", true},
		{"one from outside is kept if so asked", discovery.Forwarding{RequestID: true, KeepRequestID: true, Client: discovery.ClientIsPeer}, "abc", false},
	}
	for _, tt := range tests {
		h := headers{}
		if tt.sent != "" {
			h.Set(requestID, tt.sent)
		}
		Receive(&tt.config, h, &Peer{Address: peerAddr})
		got := strings.Join(h.Values(requestID), "|")
		if fresh := uuid.MatchString(got); fresh != tt.fresh || !fresh && got != tt.sent {
			t.Errorf("%s: got %q", tt.name, got)
		}
	}
}

// TestV14_StrangersAreNotBelieved: about rewrites, or about anything else of the
// mesh. At the edge nobody is.
func TestV14_StrangersAreNotBelieved(t *testing.T) {
	t.Parallel()
	for _, name := range foreign {
		for _, verified := range []bool{true, false} {
			for _, edge := range []bool{true, false} {
				h := headers{name: {"/admin"}}
				config := new(discovery.Forwarding)
				if edge {
					config.Client = discovery.ClientIsPeer
				}
				Receive(config, h, &Peer{Address: peerAddr, Verified: verified})
				if got := slices.Contains(h.Values(name), "/admin"); got != (verified && !edge) {
					t.Errorf("%s from a peer that is verified (%t), at the edge (%t): kept %t", name, verified, edge, got)
				}
			}
		}
	}
}

func TestV15_AClientCannotHaveOurHeadersRemoved(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"close":                                "close",
		"X-Forwarded-For":                      "",
		"keep-alive, x-forwarded-for, X-Own":   "keep-alive",
		"x-claim-sub , Upgrade,,":              "Upgrade",
		"authorization":                        "",
		"x-envoy-external-address,close":       "close",
		"X-Forwarded-Client-Cert, upgrade":     "upgrade",
		textproto.CanonicalMIMEHeaderKey("te"): "Te",
	} {
		h := headers{"connection": {sent}}
		Receive(&discovery.Forwarding{}, h, &Peer{Address: peerAddr})
		if got := strings.Join(h.Values("connection"), "|"); got != want {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
}

// member is a peer with a certificate.
func member(t *testing.T, leaf tlstest.Leaf) *Peer {
	t.Helper()
	ca := tlstest.NewCA(t)
	parsed, err := x509.ParseCertificate(ca.Issue(t, leaf).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	own, err := meshtls.NewIdentity(ca.Workload(t, paymentID), []*x509.Certificate{ca.Certificate})
	if err != nil {
		t.Fatal(err)
	}
	return &Peer{
		Address: peerAddr, Verified: true, Own: meshtls.NewStatic(own),
		TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{parsed}},
	}
}

func hashOf(peer *Peer) string {
	sum := sha256.Sum256(peer.TLS.PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

// TestBS7_WhatAClientSaysOfItsCertificateIsRemoved unless the configuration says
// otherwise.
func TestBS7_WhatAClientSaysOfItsCertificateIsRemoved(t *testing.T) {
	t.Parallel()
	const forged = "By=spiffe://a;URI=spiffe://cluster.local/ns/shop/sa/admin"
	peer := member(t, tlstest.Leaf{URIs: []string{customerID}})
	own := "By=" + paymentID + ";Hash=" + hashOf(peer) + ";URI=" + customerID
	tests := []struct {
		name                  string
		mode                  discovery.ForwardedCertificate
		fromMember, plaintext string
	}{
		{"SANITIZE", discovery.CertificateSanitize, "", ""},
		{"FORWARD_ONLY", discovery.CertificateForward, forged, ""},
		{"APPEND_FORWARD", discovery.CertificateAppend, forged + "," + own, ""},
		{"SANITIZE_SET", discovery.CertificateSet, own, ""},
		{"ALWAYS_FORWARD_ONLY", discovery.CertificateAlwaysForward, forged, forged},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := &discovery.Forwarding{Certificate: tt.mode, Details: discovery.CertificateDetails{URI: true}}
			for _, who := range []struct {
				peer *Peer
				want string
			}{{peer, tt.fromMember}, {&Peer{Address: peerAddr}, tt.plaintext}, {&Peer{Address: peerAddr, TLS: &tls.ConnectionState{}}, tt.plaintext}} {
				h := headers{clientCert: {forged}}
				Receive(config, h, who.peer)
				if got := strings.Join(h.Values(clientCert), "|"); got != who.want {
					t.Errorf("got %q, want %q", got, who.want)
				}
			}
		})
	}
}

// TestV30_ACertificateCannotWriteOtherFields: its owner chose what is in it.
func TestV30_ACertificateCannotWriteOtherFields(t *testing.T) {
	t.Parallel()
	const (
		otherURI  = "https://a.example/x;By=spiffe://cluster.local/ns/shop/sa/admin,URI=y"
		otherName = "c.example;URI=spiffe://cluster.local/ns/shop/sa/admin,By=x"
	)
	peer := member(t, tlstest.Leaf{
		URIs: []string{customerID, otherURI}, DNSNames: []string{"a.example", "b.example", otherName},
		Edit: func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "x\";URI=spiffe://cluster.local/ns/shop/sa/admin,By=\\\r\nx-role: admin"}
		},
	})
	h := headers{}
	Receive(&discovery.Forwarding{
		Certificate: discovery.CertificateSet,
		Details:     discovery.CertificateDetails{Subject: true, URI: true, DNS: true, Certificate: true, Chain: true},
	}, h, peer)
	value := h[clientCert][0]
	if strings.ContainsAny(value, "\r\n") {
		t.Fatalf("%q ends a line", value)
	}
	elements, err := Parse(value)
	if err != nil || len(elements) != 1 {
		t.Fatalf("%d elements, %v", len(elements), err)
	}
	got := elements[0]
	if want := []string{customerID, otherURI}; !slices.Equal(got["uri"], want) {
		t.Errorf("URI %q, want %q", got["uri"], want)
	}
	if want := []string{"a.example", "b.example", otherName}; !slices.Equal(got["dns"], want) {
		t.Errorf("DNS %q, want %q", got["dns"], want)
	}
	if want := []string{paymentID}; !slices.Equal(got["by"], want) {
		t.Errorf("By %q, want %q", got["by"], want)
	}
	if len(got["subject"]) != 1 || !strings.Contains(got["subject"][0], "URI=spiffe") {
		t.Errorf("subject %q", got["subject"])
	}
	if len(got["cert"]) != 1 || !strings.HasPrefix(got["cert"][0], "-----BEGIN%20CERTIFICATE") || got["cert"][0] != got["chain"][0] {
		t.Errorf("certificate %q, chain %q", got["cert"], got["chain"])
	}
}

func TestBH3_HeadersAreLimited(t *testing.T) {
	t.Parallel()
	many := map[string][]string{"a": make([]string, 100)}
	cookies := map[string][]string{"cookie": {strings.Repeat("a", 100), strings.Repeat("b", 100)}}
	tests := []struct {
		name    string
		limits  discovery.HeaderLimits
		headers map[string][]string
		want    bool
	}{
		{"no limit", discovery.HeaderLimits{}, many, false},
		{"as many as may be", discovery.HeaderLimits{Count: 100}, many, false},
		{"one too many", discovery.HeaderLimits{Count: 99}, many, true},
		{"cookies count like others", discovery.HeaderLimits{Bytes: 219}, cookies, true},
		{"as large as may be", discovery.HeaderLimits{Bytes: 220}, cookies, false},
	}
	for _, tt := range tests {
		if got := TooLarge(tt.limits, tt.headers); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

// FuzzQuote holds that no value of a certificate can be read as another field,
// and that what is written can be read again.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"", "spiffe://a/b", `a"b`, `a\`, "a;By=b", "a,b", "\r\n", "é", `\";URI=x`} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, value string, always bool) {
		elements, err := Parse("URI=" + quote(value, always) + ";Hash=x")
		if err != nil || len(elements) != 1 || len(elements[0]) != 2 || len(elements[0]["uri"]) != 1 {
			t.Fatalf("%q is read as %v, %v", value, elements, err)
		}
		if got := elements[0]["uri"][0]; strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) < 0 && got != value {
			t.Fatalf("got %q, want %q", got, value)
		}
	})
}

func FuzzForwardedFor(f *testing.F) {
	for _, seed := range []string{"1.1.1.1", "1.1.1.1, 2.2.2.2", ",", "::1", "fe80::1%eth0", "::ffff:1.2.3.4", "a,b", "1.1.1.1:80"} {
		f.Add(seed, uint32(1))
	}
	f.Fuzz(func(t *testing.T, list string, hops uint32) {
		h := headers{forwardedFor: {list}}
		got := Receive(&discovery.Forwarding{Client: discovery.ClientIsPeer, Hops: hops, Internal: prefixes("10.0.0.0/8")}, h, &Peer{Address: peerAddr})
		if _, err := netip.ParseAddr(hostOf(got)); err != nil {
			t.Fatalf("%q is no address", got)
		}
	})
}

package meshtls_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestWhatIsNegotiatedIsWhatTheSettingsSay: the versions, suites and key exchanges of
// either side are kept to in the handshake, whatever the peer would like.
func TestWhatIsNegotiatedIsWhatTheSettingsSay(t *testing.T) {
	t.Parallel()
	const (
		ours   = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
		theirs = tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	)
	peer := func(edit func(*tls.Config)) *tls.Config {
		config := &tls.Config{MinVersion: tls.VersionTLS10, InsecureSkipVerify: true}
		edit(config)
		return config
	}
	tests := []struct {
		name     string
		settings meshtls.Versions
		peer     func(*tls.Config)
		version  uint16 // 0 is no connection
		suite    uint16 // 0 is any
		curve    tls.CurveID
	}{
		{"nothing is said", meshtls.Versions{}, func(*tls.Config) {}, tls.VersionTLS13, 0, 0},
		{"nothing is said, to a peer of 1.2", meshtls.Versions{}, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, 0, 0, 0},
		{"from 1.2 on", meshtls.Versions{Min: tls.VersionTLS12}, func(*tls.Config) {}, tls.VersionTLS13, 0, 0},
		{"from 1.2 on, to a peer of 1.2", meshtls.Versions{Min: tls.VersionTLS12}, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, tls.VersionTLS12, 0, 0},
		{"from 1.2 on, to a peer of 1.1", meshtls.Versions{Min: tls.VersionTLS12}, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }, 0, 0, 0},
		{"1.2 at most", meshtls.Versions{Max: tls.VersionTLS12}, func(*tls.Config) {}, tls.VersionTLS12, 0, 0},
		{"1.2 at most, to a peer of 1.3", meshtls.Versions{Max: tls.VersionTLS12}, func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, 0, 0, 0},
		{"a suite", meshtls.Versions{Max: tls.VersionTLS12, CipherSuites: []uint16{theirs}}, func(*tls.Config) {}, tls.VersionTLS12, theirs, 0},
		{"a suite that the peer has not", meshtls.Versions{Max: tls.VersionTLS12, CipherSuites: []uint16{theirs}}, func(c *tls.Config) { c.CipherSuites = []uint16{ours} }, 0, 0, 0},
		{"a peer that wants no secrecy ahead", meshtls.Versions{Min: tls.VersionTLS12}, func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, 0, 0, 0},
		{"a key exchange", meshtls.Versions{Curves: []tls.CurveID{tls.CurveP384}}, func(*tls.Config) {}, tls.VersionTLS13, 0, tls.CurveP384},
		{"a key exchange of 1.2", meshtls.Versions{Max: tls.VersionTLS12, Curves: []tls.CurveID{tls.CurveP256}}, func(*tls.Config) {}, tls.VersionTLS12, 0, tls.CurveP256},
		{"a key exchange that the peer has not", meshtls.Versions{Curves: []tls.CurveID{tls.CurveP384}}, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, 0, 0, 0},
	}
	ca := tlstest.NewCA(t)
	own, other := source(t, ca.Workload(t, paymentID), ca), ca.Workload(t, customerID)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for side, r := range map[string]result{
				"server": connect(peer(func(c *tls.Config) {
					c.Certificates = []tls.Certificate{other}
					tt.peer(c)
				}), serverConfig(t, meshtls.ServerParams{
					Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true, Versions: tt.settings,
				})),
				"client": connect(clientConfig(t, meshtls.ClientParams{
					Identity: own, Roots: own, Authorize: meshtls.AuthorizeAny(), Versions: tt.settings,
				}), peer(func(c *tls.Config) {
					c.Certificates = []tls.Certificate{other}
					tt.peer(c)
				})),
			} {
				if tt.version == 0 {
					if r.client == nil || r.server == nil {
						t.Errorf("%s: connected over %x with %x", side, r.serverState.Version, r.serverState.CipherSuite)
					}
					continue
				}
				if r.client != nil || r.server != nil {
					t.Errorf("%s: client %v, server %v", side, r.client, r.server)
				}
				state := r.serverState
				if state.Version != tt.version || tt.suite != 0 && state.CipherSuite != tt.suite || tt.curve != 0 && state.CurveID != tt.curve {
					t.Errorf("%s: version %x, suite %x, key exchange %v", side, state.Version, state.CipherSuite, state.CurveID)
				}
			}
		})
	}
}

// TestAConnectionIsNegotiatedOnce: neither side lets the other negotiate anew over a
// connection of TLS 1.2, or asks for it.
func TestAConnectionIsNegotiatedOnce(t *testing.T) {
	t.Parallel()
	own := meshtls.NewStatic(nil)
	client := clientConfig(t, meshtls.ClientParams{Roots: own, Authorize: meshtls.AuthorizeAny(), Versions: meshtls.Versions{Min: tls.VersionTLS12}})
	server := serverConfig(t, meshtls.ServerParams{Identity: own, Versions: meshtls.Versions{Min: tls.VersionTLS12}})
	if client.Renegotiation != tls.RenegotiateNever || server.Renegotiation != tls.RenegotiateNever {
		t.Error("a connection may be negotiated anew")
	}
}

// inPieces sends each record of a handshake as records of one byte each.
type inPieces struct{ net.Conn }

func (c inPieces) Write(p []byte) (int, error) {
	const head, handshake = 5, 22
	rest := p
	for len(rest) >= head && rest[0] == handshake {
		size := int(rest[3])<<8 | int(rest[4])
		for _, b := range rest[head : head+size] {
			if _, err := c.Conn.Write([]byte{handshake, rest[1], rest[2], 0, 1, b}); err != nil {
				return 0, err
			}
		}
		rest = rest[head+size:]
	}
	if _, err := c.Conn.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestV28_AHelloInManyRecordsIsAHello: where it is looked at, and where it is verified.
func TestV28_AHelloInManyRecordsIsAHello(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own, stranger := source(t, ca.Workload(t, paymentID), ca), tlstest.NewCA(t)
	for name, tt := range map[string]struct {
		cert tls.Certificate
		want meshtls.Reason
	}{
		"a member":   {ca.Workload(t, customerID), 0},
		"a stranger": {stranger.Workload(t, customerID), meshtls.UnknownAuthority},
	} {
		clientRaw, serverRaw := memnet.Pipe()
		done := make(chan error, 1)
		go func() { // until the handshake ends
			defer serverRaw.Close()
			done <- tls.Server(serverRaw, strictServer(t, own, meshtls.AuthorizeAny())).Handshake()
		}()
		client := tls.Client(inPieces{clientRaw}, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{tt.cert}})
		if err := client.Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-done; reason(err) != tt.want || (err == nil) != (tt.want == 0) {
			t.Errorf("%s: %v", name, err)
		}
		_ = clientRaw.Close()
	}
}

// TestV20_NamesOfTheOutsideAreComparedWhole: addresses in every form, dots at the end,
// escapes, several URIs.
func TestV20_NamesOfTheOutsideAreComparedWhole(t *testing.T) {
	t.Parallel()
	exact := func(kind meshtls.NameType, text string) []meshtls.NameMatcher {
		return []meshtls.NameMatcher{{Type: kind, Exact: text}}
	}
	is := func(want string) []meshtls.SANMatcher {
		return []meshtls.SANMatcher{func(uri string) bool { return uri == want }}
	}
	ip := func(text string) tlstest.Leaf { return tlstest.Leaf{IPs: []net.IP{net.ParseIP(text)}} }
	uri := func(texts ...string) tlstest.Leaf {
		return tlstest.Leaf{URIs: texts}
	}
	tests := []struct {
		name  string
		leaf  tlstest.Leaf
		uris  []meshtls.SANMatcher
		names []meshtls.NameMatcher
		want  bool
	}{
		{"an address of IPv6", ip("2001:db8::1"), nil, exact(meshtls.IPName, "2001:db8::1"), true},
		{"a part of an address", ip("10.0.0.12"), nil, exact(meshtls.IPName, "10.0.0.1"), false},
		{"an address with a zero before it", ip("10.0.0.1"), nil, exact(meshtls.IPName, "010.0.0.1"), false},
		{"an address as a number", ip("10.0.0.1"), nil, exact(meshtls.IPName, "167772161"), false},
		{"an address as a DNS name", ip("10.0.0.1"), nil, exact(meshtls.DNSName, "10.0.0.1"), false},
		{"a wildcard for a part of an address", tlstest.Leaf{DNSNames: []string{"*.0.0.1"}}, nil, exact(meshtls.DNSName, "10.0.0.1"), true}, // a DNS name, as it is asked for
		{"a wildcard for an address", tlstest.Leaf{DNSNames: []string{"*.0.0.1"}}, nil, exact(meshtls.IPName, "10.0.0.1"), false},
		{"a dot at the end of the name that is wanted", tlstest.Leaf{DNSNames: []string{"a.example"}}, nil, exact(meshtls.DNSName, "a.example."), false},
		{"a name without its domain", tlstest.Leaf{DNSNames: []string{"a"}}, nil, exact(meshtls.DNSName, "a.example"), false},
		{"an email address in another case", tlstest.Leaf{Edit: func(c *x509.Certificate) { c.EmailAddresses = []string{"Ada@example"} }}, nil, exact(meshtls.EmailName, "ada@example"), false},
		{"an email address as a DNS name", tlstest.Leaf{DNSNames: []string{"example"}}, nil, exact(meshtls.EmailName, "ada@example"), false},
		{"one of several URIs", uri("spiffe://a/x", "spiffe://b/y"), is("spiffe://b/y"), nil, true},
		{"a URI with an escape", uri("https://a.example/x%2fy"), is("https://a.example/x/y"), nil, false},
		{"a URI with an escape of a letter", uri("https://a.example/%78"), is("https://a.example/x"), nil, false},
		{"a URI that goes on", uri("https://a.example/x/y"), is("https://a.example/x"), nil, false},
		{"a URI with a user", uri("https://b.example@a.example/x"), is("https://a.example/x"), nil, false},
		{"a URI with a query", uri("https://a.example/x?y"), is("https://a.example/x"), nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := meshtls.AuthorizeNames(tt.uris, tt.names)(meshtls.ID{}, leafOf(t, tt.leaf))
			if (err == nil) != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAConnectionSendsNothingBeforeItsHandshake: there is no early data (0-RTT) that
// could be played again. crypto/tls has none over TCP; a server that gets some as if it
// were part of the protocol ends the handshake.
func TestAConnectionSendsNothingBeforeItsHandshake(t *testing.T) {
	t.Parallel()
	ca := tlstest.NewCA(t)
	own := source(t, ca.Workload(t, paymentID), ca)
	clientRaw, serverRaw := memnet.Pipe()
	done := make(chan error, 1)
	go func() { // until the handshake ends
		defer serverRaw.Close()
		server := tls.Server(serverRaw, strictServer(t, own, meshtls.AuthorizeAny()))
		n, err := server.Read(make([]byte, 1))
		if n > 0 {
			err = nil
		}
		done <- err
	}()
	client := tls.Client(earlyData{clientRaw}, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{ca.Workload(t, customerID)}})
	if err := client.Handshake(); err == nil {
		_, err = client.Read(make([]byte, 1))
		if err == nil {
			t.Error("the connection is served")
		}
	}
	if <-done == nil {
		t.Error("the server read what came before the handshake")
	}
	_ = clientRaw.Close()
}

// earlyData sends a record of application data behind the hello.
type earlyData struct{ net.Conn }

func (c earlyData) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err == nil && p[0] == 22 && p[5] == 1 {
		_, err = c.Conn.Write([]byte{23, 3, 3, 0, 5, 'e', 'a', 'r', 'l', 'y'})
	}
	return n, err
}

package filesource_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/filesource"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

const partnerID = "spiffe://partner.example/ns/shop/sa/customer"

type domains = map[string][]*tlstest.CA

// mapped makes the agent write a bundle map in the place of roots.
func (a *agent) mapped(t *testing.T, bundles domains) {
	t.Helper()
	a.config.BundleMapFile = filepath.Join(filepath.Dir(a.config.CertificateFile), "bundles.json")
	a.config.CACertificateFile = ""
	write(t, a.config.BundleMapFile, []byte(tlstest.BundleMap(bundles)))
	cert := a.workload(t)
	write(t, a.config.CertificateFile, tlstest.CertificatePEM(cert.Certificate...))
	write(t, a.config.PrivateKeyFile, tlstest.KeyPEM(t, cert))
}

// sides are a client and a server that verify by source.
func sides(t *testing.T, source meshtls.Source) (client, server *tls.Config) {
	t.Helper()
	client, err := meshtls.ClientConfig(meshtls.ClientParams{Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny()})
	if err != nil {
		t.Fatal(err)
	}
	server, err = meshtls.ServerConfig(meshtls.ServerParams{
		Identity: source, Roots: source, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// shake makes a connection and returns why each side refused the other.
func shake(clientTLS, serverTLS *tls.Config) (resumed bool, client, server error) {
	clientConn, serverConn := memnet.Pipe()
	served := make(chan error, 1)
	go func() {
		defer serverConn.Close()
		conn := tls.Server(serverConn, serverTLS)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		served <- err
	}()
	conn := tls.Client(clientConn, clientTLS)
	if client = conn.Handshake(); client == nil {
		_, client = conn.Read(make([]byte, 1))
		resumed = conn.ConnectionState().DidResume
	}
	_ = clientConn.Close()
	return resumed, client, <-served
}

// TestBS2_AMapInAFileVerifiesEachPeerByItsOwnTrustDomain: maps times peers, as a client
// and as a server, of a source with a certificate and of one without.
func TestBS2_AMapInAFileVerifiesEachPeerByItsOwnTrustDomain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := tlstest.NewCA(t), tlstest.NewCA(t)
		under := here.Intermediate(t)
		peers := []struct {
			name string
			cert tls.Certificate
		}{
			{"a member", here.Workload(t, workloadID)},
			{"a member, by an intermediate", under.Workload(t, workloadID)},
			{"a partner", there.Workload(t, partnerID)},
			{"a member's name, by the partner's root", there.Workload(t, workloadID)},
			{"a partner's name, by our root", here.Workload(t, partnerID)},
			{"a third trust domain, by our root", here.Workload(t, "spiffe://third.org/a")},
			{"a trust domain below ours", here.Workload(t, "spiffe://a.cluster.local/ns/shop/sa/payment")},
			{"no URI", here.Issue(t, tlstest.Leaf{DNSNames: []string{"cluster.local"}})},
			{"two URIs", here.Issue(t, tlstest.Leaf{URIs: []string{workloadID, workloadID + "2"}})},
			{"two URIs of two trust domains", here.Issue(t, tlstest.Leaf{URIs: []string{workloadID, partnerID}})},
			{"a URI that is no SPIFFE ID", here.Issue(t, tlstest.Leaf{URIs: []string{"https://cluster.local/ns/shop/sa/payment"}})},
			{"the name of a trust domain alone", here.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://cluster.local"}})},
			{"nobody's root", tlstest.NewCA(t).Workload(t, workloadID)},
		}
		for _, tt := range []struct {
			name    string
			bundles domains
			trusted []string // names of peers
		}{
			{"both", domains{"cluster.local": {here}, "partner.example": {there}}, []string{"a member", "a member, by an intermediate", "a partner"}},
			{"ours", domains{"cluster.local": {here}}, []string{"a member", "a member, by an intermediate"}},
			{"ours, of two roots", domains{"cluster.local": {there, here}}, []string{"a member", "a member, by an intermediate", "a member's name, by the partner's root"}},
			{"ours, by the intermediate", domains{"cluster.local": {under}}, []string{"a member, by an intermediate"}},
			{"the partner's", domains{"partner.example": {there}}, []string{"a partner"}},
			{"an empty bundle", domains{"cluster.local": {}, "partner.example": {there}}, []string{"a partner"}},
			{"an empty map", domains{}, nil},
		} {
			for _, whole := range []bool{true, false} {
				files := newAgent(t)
				files.ca = here
				files.mapped(t, tt.bundles)
				source := files.newSource(t)
				own, err := source.Identity()
				if err != nil {
					t.Fatal(err)
				}
				if own.Bundles() == nil {
					t.Errorf("%s: no trust domain is held to roots of its own", tt.name)
				}
				client, server := sides(t, source)
				if !whole {
					files.config.CertificateFile, files.config.PrivateKeyFile = "", ""
					roots := files.newSource(t)
					if identity := current(t, roots); len(identity.Certificate.Certificate) != 0 || !identity.ID.IsZero() {
						t.Errorf("%s: %v has a certificate", tt.name, identity)
					}
					client.VerifyConnection = mustClient(t, roots).VerifyConnection
					server.VerifyConnection = mustServer(t, source, roots).VerifyConnection
				}
				for _, peer := range peers {
					want := slices.Contains(tt.trusted, peer.name)
					name := fmt.Sprintf("%s, with a certificate %t: %s", tt.name, whole, peer.name)
					_, refusal, _ := shake(client, &tls.Config{Certificates: []tls.Certificate{peer.cert}})
					checkTrust(t, "client: "+name, refusal, want)
					_, _, refusal = shake(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{peer.cert}}, server)
					checkTrust(t, "server: "+name, refusal, want)
				}
				if _, _, refusal := shake(&tls.Config{InsecureSkipVerify: true}, server); refusal == nil {
					t.Errorf("%s: a client without a certificate is trusted", tt.name)
				}
				source.Close()
			}
		}
	})
}

func mustClient(t *testing.T, roots meshtls.Source) *tls.Config {
	t.Helper()
	config, err := meshtls.ClientConfig(meshtls.ClientParams{Roots: roots, Authorize: meshtls.AuthorizeAny()})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func mustServer(t *testing.T, own, roots meshtls.Source) *tls.Config {
	t.Helper()
	config, err := meshtls.ServerConfig(meshtls.ServerParams{
		Identity: own, Roots: roots, Authorize: meshtls.AuthorizeAny(), RequireClientCertificate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func checkTrust(t *testing.T, what string, err error, want bool) {
	t.Helper()
	if want {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if refusal, ok := errors.AsType[*meshtls.HandshakeError](err); !ok || refusal.Reason != meshtls.UnknownAuthority {
		t.Errorf("%s: %v, want a refusal of the authority", what, err)
	}
}

// TestBS2_AMapTakesThePlaceOfRoots: they are not read beside it, whatever becomes of it,
// and neither are the operating system's.
func TestBS2_AMapTakesThePlaceOfRoots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		other := tlstest.NewCA(t)
		a.mapped(t, domains{"cluster.local": {other}})
		a.config.CACertificateFile = filepath.Join(filepath.Dir(a.config.BundleMapFile), "root.pem") // which is not there
		source := a.newSource(t)
		client, _ := sides(t, source)
		ours := &tls.Config{Certificates: []tls.Certificate{a.workload(t)}}
		for _, step := range []func(){
			func() {},
			func() { a.writeRoots(t, a.ca) },
			func() { write(t, a.config.BundleMapFile, []byte("junk")) },
			func() { remove(t, a.config.BundleMapFile) },
			func() { write(t, a.config.BundleMapFile, []byte(`{"trust_domains": {}}`)) },
		} {
			step()
			time.Sleep(2 * filesource.DefaultRefreshInterval)
			synctest.Wait()
			_, refusal, _ := shake(client, ours)
			checkTrust(t, "roots beside the map", refusal, false)
		}

		write(t, a.config.BundleMapFile, []byte(`{"trust_domains": []}`))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := filesource.New(ctx, a.config)
		want := fmt.Sprintf("file_watcher: spiffe_trust_bundle_map_file %q: trust_domains: want a JSON object", a.config.BundleMapFile)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("a first map that is none: %v, want %q", err, want)
		}
	})
}

// TestBS2_ABrokenLaterMapKeepsTheOldOne breaks the map in each way, and mends it.
func TestBS2_ABrokenLaterMapKeepsTheOldOne(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		breakIt func(t *testing.T, a *agent, file string)
		want    string
	}{
		{"no map", func(t *testing.T, _ *agent, file string) { remove(t, file) }, "spiffe_trust_bundle_map_file: open "},
		{"a directory", func(t *testing.T, _ *agent, file string) {
			remove(t, file)
			if err := os.Mkdir(file, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is a directory: want a regular file"},
		{"an empty file", func(t *testing.T, _ *agent, file string) { write(t, file, nil) }, "unexpected end of JSON input"},
		{"half a map", func(t *testing.T, a *agent, file string) {
			text := tlstest.BundleMap(domains{"cluster.local": {a.ca}})
			write(t, file, []byte(text[:len(text)/2]))
		}, "unexpected end of JSON input"},
		{"roots in its place", func(t *testing.T, a *agent, file string) {
			write(t, file, tlstest.CertificatePEM(a.ca.Certificate.Raw))
		}, "invalid character '-'"},
		{"one bad bundle beside a good one", func(t *testing.T, a *agent, file string) {
			text := tlstest.BundleMap(domains{"cluster.local": {a.ca}})
			write(t, file, []byte(strings.Replace(text, `{"cluster.local"`, `{"partner.example": {}, "cluster.local"`, 1)))
		}, `trust domain "partner.example": spiffebundle: no authorities found`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAgent(t)
				a.mapped(t, domains{"cluster.local": {a.ca}})
				file := a.config.BundleMapFile
				source := a.newSource(t)
				first := current(t, source)
				tt.breakIt(t, a, file)
				time.Sleep(40 * time.Minute)
				if current(t, source) != first {
					t.Error("the old map is gone")
				}
				failures := a.failures()
				if len(failures) != 1 || !strings.Contains(failures[0].Error(), tt.want) || !strings.HasPrefix(failures[0].Error(), "file_watcher: spiffe_trust_bundle_map_file") {
					t.Errorf("reported %v, want %q once", failures, tt.want)
				}
				_ = os.Remove(file) // it may be a directory, or gone
				a.mapped(t, domains{"partner.example": {a.ca}})
				time.Sleep(filesource.DefaultRefreshInterval)
				synctest.Wait()
				if next := current(t, source); next.RootsKey == first.RootsKey || next.Roots != nil || next.Bundles()["partner.example"] == nil {
					t.Error("the mended map is not used")
				}
			})
		})
	}
}

// TestV19_AMapThatWithdrawsTrustEndsResumption: a session of before is no way round the
// map of now, for a client and for a server that has tickets.
func TestV19_AMapThatWithdrawsTrustEndsResumption(t *testing.T) {
	t.Parallel()
	for _, next := range []domains{{}, {"cluster.local": {}}, {"partner.example": {tlstest.NewCA(t)}}, {"cluster.local": {tlstest.NewCA(t)}}} {
		synctest.Test(t, func(t *testing.T) {
			a := newAgent(t)
			a.mapped(t, domains{"cluster.local": {a.ca}})
			source := a.newSource(t)
			client, server := sides(t, source)
			client.ClientSessionCache, client.ServerName = tls.NewLRUClientSessionCache(0), "payment"
			server.SessionTicketsDisabled = false
			plain := &tls.Config{Certificates: []tls.Certificate{a.workload(t)}}
			stranger := &tls.Config{
				InsecureSkipVerify: true, Certificates: plain.Certificates, ServerName: "payment",
				ClientSessionCache: tls.NewLRUClientSessionCache(0),
			}
			for i := range 2 {
				if resumed, refusal, _ := shake(client, plain); refusal != nil || resumed != (i > 0) {
					t.Fatalf("client: %v, resumed %t", refusal, resumed)
				}
				if resumed, _, refusal := shake(stranger, server); refusal != nil || resumed != (i > 0) {
					t.Fatalf("server: %v, resumed %t", refusal, resumed)
				}
			}
			changed := source.Changed()
			write(t, a.config.BundleMapFile, []byte(tlstest.BundleMap(next)))
			<-changed
			_, refusal, _ := shake(client, plain)
			checkTrust(t, "client", refusal, false)
			_, _, refusal = shake(stranger, server)
			checkTrust(t, "server", refusal, false)
		})
	}
}

// TestV24_TheAuthorityOfAMapChangesUnderLoad in four phases, each a change of one file:
// the next root is added for all, the certificates change, the old root goes. The files
// are written in two steps, as an agent without transactions does.
func TestV24_TheAuthorityOfAMapChangesUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		old, next, partner := tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)
		a, b := newAgent(t), newAgent(t)
		with := func(roots ...*tlstest.CA) { // for both
			for _, side := range []*agent{a, b} {
				text := []byte(tlstest.BundleMap(domains{"cluster.local": roots, "partner.example": {partner}}))
				write(t, side.config.BundleMapFile, text[:len(text)/3])
				time.Sleep(time.Millisecond)
				write(t, side.config.BundleMapFile, text)
			}
		}
		for _, side := range []*agent{a, b} {
			side.ca, side.config.RefreshInterval = old, time.Second
			side.mapped(t, domains{"cluster.local": {old}, "partner.example": {partner}})
		}
		client, _ := sides(t, a.newSource(t))
		_, server := sides(t, b.newSource(t))
		partners := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{partner.Workload(t, partnerID)}}
		load := func(phase string) {
			for n := range 40 {
				time.Sleep(100 * time.Millisecond)
				if n%10 == 0 { // leaves rotate all the while
					for _, side := range []*agent{a, b} {
						cert := side.workload(t)
						write(t, side.config.CertificateFile, tlstest.CertificatePEM(cert.Certificate...))
						time.Sleep(time.Millisecond)
						write(t, side.config.PrivateKeyFile, tlstest.KeyPEM(t, cert))
					}
				}
				_, refused, refuses := shake(client, server)
				if refused != nil || refuses != nil {
					t.Fatalf("%s, connection %d: client %v, server %v", phase, n, refused, refuses)
				}
				if _, _, refuses := shake(partners, server); refuses != nil {
					t.Fatalf("%s, connection %d of the partner: %v", phase, n, refuses)
				}
			}
		}
		load("the old root")
		with(old, next)
		load("both roots")
		a.ca, b.ca = next, next
		load("certificates of the next root")
		time.Sleep(time.Second)
		with(next)
		load("the next root")
		_, _, refusal := shake(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{old.Workload(t, workloadID)}}, server)
		checkTrust(t, "a certificate of the old root", refusal, false)
	})
}

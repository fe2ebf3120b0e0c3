package mesh_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/tls/filesource"
)

// mapFiles are the files of a workload that verifies by a bundle map. They are read
// every second.
type mapFiles struct{ dir string }

func newMapFiles(t *testing.T, ca *tlstest.CA, id string, bundles map[string][]*tlstest.CA) (*mapFiles, *filesource.Source) {
	t.Helper()
	f := &mapFiles{dir: t.TempDir()}
	cert := ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotAfter: time.Now().Add(24 * time.Hour)})
	f.write(t, "cert.pem", tlstest.CertificatePEM(cert.Certificate...))
	f.write(t, "key.pem", tlstest.KeyPEM(t, cert))
	f.trust(t, bundles)
	source, err := filesource.New(t.Context(), filesource.Config{
		CertificateFile: f.path("cert.pem"), PrivateKeyFile: f.path("key.pem"), BundleMapFile: f.path("bundles.json"),
		RefreshInterval: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Close)
	return f, source
}

func (f *mapFiles) path(name string) string { return filepath.Join(f.dir, name) }

func (f *mapFiles) write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(f.path(name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *mapFiles) trust(t *testing.T, bundles map[string][]*tlstest.CA) {
	t.Helper()
	f.write(t, "bundles.json", []byte(tlstest.BundleMap(bundles)))
}

// TestBS2_TrustThatAMapInAFileWithdrawsEnds: a server and a client of the mesh let go of
// the connections that are open, and make no new ones, within the interval and 6 s (as
// for every source). A map that cannot be read, and one with more in it, cut none.
func TestBS2_TrustThatAMapInAFileWithdrawsEnds(t *testing.T) {
	t.Parallel()
	const limit = 7 * time.Second
	here := func(cas ...*tlstest.CA) map[string][]*tlstest.CA {
		return map[string][]*tlstest.CA{"cluster.local": cas}
	}
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, ca *tlstest.CA, f *mapFiles)
		stays  bool
	}{
		{"a root more", func(t *testing.T, ca *tlstest.CA, f *mapFiles) { f.trust(t, here(ca, tlstest.NewCA(t))) }, true},
		{"half a map", func(t *testing.T, _ *tlstest.CA, f *mapFiles) {
			f.write(t, "bundles.json", []byte(`{"trust_domains": {"cluster.local": {"keys": [`))
		}, true},
		{"no map", func(t *testing.T, _ *tlstest.CA, f *mapFiles) {
			if err := os.Remove(f.path("bundles.json")); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"another root", func(t *testing.T, _ *tlstest.CA, f *mapFiles) { f.trust(t, here(tlstest.NewCA(t))) }, false},
		{"the root in another trust domain", func(t *testing.T, ca *tlstest.CA, f *mapFiles) {
			f.trust(t, map[string][]*tlstest.CA{"partner.example": {ca}})
		}, false},
		{"an empty bundle", func(t *testing.T, _ *tlstest.CA, f *mapFiles) { f.trust(t, here()) }, false},
		{"an empty map", func(t *testing.T, _ *tlstest.CA, f *mapFiles) { f.trust(t, nil) }, false},
	} {
		for protocol, peer := range idlePeers {
			t.Run("a server: "+tt.name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := &idleSides{world: meshtest.New(t), ca: tlstest.NewCA(t)}
					files, source := newMapFiles(t, s.ca, paymentID, here(s.ca))
					s.world.Service("payment.shop", meshtest.Mesh(mesh.WithIdentity("default", source)),
						meshtest.HTTP(80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("here")) })),
						meshtest.GRPC(9090, func(r grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(r, new(slowService)) }))
					conn, ask := peer(t, s, s.ca.Issue(t, tlstest.Leaf{URIs: []string{customerID}, NotAfter: time.Now().Add(time.Hour)}))
					if err := ask(0); err != nil {
						t.Fatal(err)
					}
					tt.change(t, s.ca, files)
					select {
					case <-conn.ended:
						if tt.stays {
							t.Error("the connection was closed")
						}
					case <-time.After(limit):
						if !tt.stays {
							t.Fatal("the connection is open still")
						}
					}
					if err := ask(0); (err == nil) != tt.stays {
						t.Errorf("afterwards: %v, want trust %t", err, tt.stays)
					}
				})
			})
		}
		t.Run("a client: "+tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newIdleSides(t, 24*time.Hour)
				files, source := newMapFiles(t, s.ca, customerID, here(s.ca))
				m := s.world.Workload("customer.shop", meshtest.Mesh(mesh.WithIdentity("default", source)))
				over := asking(t, "http", m.Transport())
				channel, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = channel.Close() })
				called := func(time.Duration) error {
					_, err := grpc_testing.NewTestServiceClient(channel).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
					return err
				}
				asks := map[string]func(time.Duration) error{"HTTP": over, "gRPC": called}
				for protocol, ask := range asks {
					if err := ask(0); err != nil {
						t.Fatalf("%s: %v", protocol, err)
					}
				}
				own := func() mesh.IdentityState {
					all := m.Identities()
					return all[slices.IndexFunc(all, func(i mesh.IdentityState) bool { return i.Name == "default" })]
				}
				if got := own(); got.Err != nil || !slices.Equal(got.TrustDomains, []string{"cluster.local"}) {
					t.Errorf("identity: %+v", got)
				}
				tt.change(t, s.ca, files)
				time.Sleep(limit)
				for protocol, ask := range asks {
					if err := ask(0); (err == nil) != tt.stays {
						t.Errorf("%s, afterwards: %v, want trust %t", protocol, err, tt.stays)
					}
				}
				if got := own(); got.Err != nil || got.TrustDomains == nil {
					t.Errorf("identity: %+v", got)
				}
			})
		})
	}
}

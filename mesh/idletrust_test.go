package mesh_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// untilSaid waits until its caller has nothing more to wait for.
func untilSaid(ctx context.Context, wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}

// slowService answers after the time that it is asked for.
type slowService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (*slowService) UnaryCall(ctx context.Context, r *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	untilSaid(ctx, time.Duration(r.GetResponseSize())*time.Second)
	return new(grpc_testing.SimpleResponse), nil
}

// idleSides are a server of the mesh and the authority that it knows.
type idleSides struct {
	world   *meshtest.World
	ca      *tlstest.CA
	payment *meshtls.Static
}

func newIdleSides(t *testing.T, life time.Duration) *idleSides {
	t.Helper()
	s := &idleSides{world: meshtest.New(t), ca: tlstest.NewCA(t)}
	s.payment = meshtls.NewStatic(s.issue(t, paymentID, life, s.ca))
	s.world.Service("payment.shop", meshtest.Mesh(mesh.WithIdentity("default", s.payment)),
		meshtest.HTTP(80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
			if err == nil {
				untilSaid(r.Context(), wait)
			}
			_, _ = io.WriteString(w, "here")
		})),
		meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, new(slowService)) }))
	return s
}

func (s *idleSides) issue(t *testing.T, id string, life time.Duration, roots ...*tlstest.CA) *meshtls.Identity {
	t.Helper()
	identity, err := meshtls.NewIdentity(s.ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotAfter: time.Now().Add(life)}), certificatesOf(roots...))
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

// overheard is a connection that knows when its other side has closed it.
type overheard struct {
	net.Conn

	once  sync.Once
	ended chan struct{} // closed then
}

func (c *overheard) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

// idlePeers are callers without a mesh: ask makes a call that takes so long.
var idlePeers = map[string]func(t *testing.T, s *idleSides, cert tls.Certificate) (conn *overheard, ask func(wait time.Duration) error){
	"HTTP/1.1": func(t *testing.T, s *idleSides, cert tls.Certificate) (*overheard, func(time.Duration) error) {
		t.Helper()
		return s.dial(t, cert, "http/1.1")
	},
	"HTTP/2": func(t *testing.T, s *idleSides, cert tls.Certificate) (*overheard, func(time.Duration) error) {
		t.Helper()
		return s.dial(t, cert, "h2")
	},
	"gRPC": func(t *testing.T, s *idleSides, cert tls.Certificate) (*overheard, func(time.Duration) error) {
		t.Helper()
		raw, err := s.world.DialContext(t.Context(), "tcp", "payment.shop:9090")
		if err != nil {
			t.Fatal(err)
		}
		conn := &overheard{Conn: raw, ended: make(chan struct{})}
		dialed := false
		channel, err := grpc.NewClient("passthrough:///payment.shop:9090",
			grpc.WithTransportCredentials(credentials.NewTLS(strangerTLS(cert, "h2"))),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				if dialed {
					return nil, errors.New("there is one connection")
				}
				dialed = true
				return conn, nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = channel.Close() })
		return conn, func(wait time.Duration) error {
			_, err := grpc_testing.NewTestServiceClient(channel).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseSize: int32(wait / time.Second)})
			return err
		}
	},
}

// strangerTLS believes every server.
func strangerTLS(cert tls.Certificate, protocol string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS13}
}

func (s *idleSides) dial(t *testing.T, cert tls.Certificate, protocol string) (*overheard, func(time.Duration) error) {
	t.Helper()
	raw, err := s.world.DialContext(t.Context(), "tcp", "payment.shop:80")
	if err != nil {
		t.Fatal(err)
	}
	conn := &overheard{Conn: raw, ended: make(chan struct{})}
	secure := tls.Client(conn, strangerTLS(cert, protocol))
	if err := secure.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return secure, nil // it is one, and nothing is sent over it once it is closed
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = secure.Close()
	})
	return conn, asking(t, "https", transport)
}

func asking(t *testing.T, scheme string, over http.RoundTripper) func(time.Duration) error {
	t.Helper()
	return func(wait time.Duration) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://payment.shop.svc.cluster.local/?wait="+wait.String(), http.NoBody)
		if err != nil {
			return err
		}
		resp, err := over.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && string(body) != "here" {
			err = errors.New(resp.Status + " " + string(body))
		}
		return err
	}
}

// TestG24_V25_AnIdleConnectionEndsWithTheTrustInItsPeer: nobody asks for anything over it,
// and it is closed by the server all the same, within 6 s; what is under way over it ends
// where it is.
func TestG24_V25_AnIdleConnectionEndsWithTheTrustInItsPeer(t *testing.T) {
	t.Parallel()
	const life, limit = 10 * time.Minute, 6 * time.Second
	for _, tt := range []struct {
		name   string
		life   time.Duration // of the certificate
		change func(t *testing.T, s *idleSides)
		busy   time.Duration // what is under way takes so long
		after  time.Duration // how long after the change the connection ends, but for the limit
		stays  bool
	}{
		{name: "nothing changes", life: 2 * life, change: func(*testing.T, *idleSides) {}, stays: true},
		{name: "a new certificate and a root more", life: 2 * life, change: func(t *testing.T, s *idleSides) {
			t.Helper()
			s.payment.Set(s.issue(t, paymentID, 2*life, s.ca, tlstest.NewCA(t)))
		}, stays: true},
		{name: "another policy about requests", life: 2 * life, change: func(_ *testing.T, s *idleSides) {
			s.world.Apply(ledgerPolicy(`{action: DENY, rules: [{to: [{operation: {paths: [/none]}}]}]}`))
		}, stays: true},
		{name: "STRICT", life: 2 * life, change: func(_ *testing.T, s *idleSides) { s.world.Apply(ledgerStrict) }, stays: true},
		{name: "the server has no identity any more", life: 2 * life, change: func(_ *testing.T, s *idleSides) { s.payment.Set(nil) }, stays: true},
		{name: "another root", life: 2 * life, change: func(t *testing.T, s *idleSides) {
			t.Helper()
			s.payment.Set(s.issue(t, paymentID, life, tlstest.NewCA(t)))
		}},
		{name: "another root while something is under way", life: 2 * life, change: func(t *testing.T, s *idleSides) {
			t.Helper()
			s.payment.Set(s.issue(t, paymentID, life, tlstest.NewCA(t)))
		}, busy: time.Minute, after: time.Minute},
		{name: "the certificate expires", life: life, change: func(*testing.T, *idleSides) {}, after: life},
		{name: "the certificate expires while something is under way", life: life, change: func(*testing.T, *idleSides) {}, busy: 2 * life, after: 2 * life},
	} {
		for protocol, peer := range idlePeers {
			t.Run(tt.name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newIdleSides(t, 4*life)
					cert := s.ca.Issue(t, tlstest.Leaf{URIs: []string{customerID}, NotAfter: time.Now().Add(tt.life)})
					conn, ask := peer(t, s, cert)
					if err := ask(0); err != nil {
						t.Fatal(err)
					}
					since := time.Now()
					var busy sync.WaitGroup
					defer busy.Wait()
					if tt.busy > 0 {
						busy.Go(func() { // ends with the call
							if err := ask(tt.busy); err != nil {
								t.Errorf("what was under way: %v", err)
							}
						})
						synctest.Wait()
					}
					tt.change(t, s)
					select {
					case <-conn.ended:
						if took := time.Since(since); tt.stays || took < tt.after || took > tt.after+limit {
							t.Errorf("the connection was closed after %v", took)
						}
					case <-time.After(life + 2*tt.busy + 2*limit):
						if !tt.stays {
							t.Error("the connection is open still")
						} else if err := ask(0); err != nil {
							t.Errorf("it is open, and of no use: %v", err)
						}
					}
				})
			})
		}
	}
}

// TestG24_V25_AnIdleConnectionOfACallerEndsWithTheTrustInItsPeer, which is what it called.
func TestG24_V25_AnIdleConnectionOfACallerEndsWithTheTrustInItsPeer(t *testing.T) {
	t.Parallel()
	const life, limit = 10 * time.Minute, 6 * time.Second
	overHTTP := func(t *testing.T, m *mesh.Mesh) func(time.Duration) error {
		t.Helper()
		return asking(t, "http", m.Transport())
	}
	protocols := []struct {
		name, yaml string
		caller     func(t *testing.T, m *mesh.Mesh) func(time.Duration) error
	}{
		{"HTTP/1.1", "", overHTTP},
		{"HTTP/2", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: h2, namespace: shop}\nspec: {host: payment.shop.svc.cluster.local, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}\n", overHTTP},
		{"gRPC", "", func(t *testing.T, m *mesh.Mesh) func(time.Duration) error {
			t.Helper()
			channel, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = channel.Close() })
			return func(wait time.Duration) error {
				_, err := grpc_testing.NewTestServiceClient(channel).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseSize: int32(wait / time.Second)})
				return err
			}
		}},
	}
	for _, tt := range []struct {
		name   string
		life   time.Duration // of the server's certificate
		roots  func(t *testing.T, s *idleSides) []*tlstest.CA
		nobody bool
		busy   time.Duration
		after  time.Duration
		stays  bool
	}{
		{name: "nothing changes", life: 2 * life, stays: true},
		{name: "there is no identity any more", life: 2 * life, nobody: true, stays: true},
		{name: "another root", life: 2 * life, roots: func(t *testing.T, _ *idleSides) []*tlstest.CA {
			t.Helper()
			return []*tlstest.CA{tlstest.NewCA(t)}
		}},
		{name: "another root while something is under way", life: 2 * life, roots: func(t *testing.T, _ *idleSides) []*tlstest.CA {
			t.Helper()
			return []*tlstest.CA{tlstest.NewCA(t)}
		}, busy: 10 * time.Second, after: 10 * time.Second},
		// Shortly before, so that no request meets the end.
		{name: "the certificate expires", life: life, after: life - 6*time.Second},
	} {
		for _, p := range protocols {
			t.Run(tt.name+", "+p.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					s := newIdleSides(t, tt.life)
					if p.yaml != "" {
						s.world.Apply(p.yaml)
					}
					closed := make(chan time.Time, 16)
					identity := meshtls.NewStatic(s.issue(t, customerID, 4*life, s.ca))
					m := s.world.Workload("customer.shop", meshtest.Mesh(mesh.WithIdentity("default", identity)), meshtest.Hooks(&observe.Hooks{
						ConnClosed: func(e observe.ConnEvent) {
							if e.Direction == observe.Outbound {
								closed <- time.Now()
							}
						},
					}))
					ask := p.caller(t, m)
					if err := ask(0); err != nil {
						t.Fatal(err)
					}
					since := time.Now()
					var busy sync.WaitGroup
					defer busy.Wait()
					if tt.busy > 0 {
						busy.Go(func() { // ends with the call
							if err := ask(tt.busy); err != nil {
								t.Errorf("what was under way: %v", err)
							}
						})
						synctest.Wait()
					}
					switch {
					case tt.nobody:
						identity.Set(nil)
					case tt.roots != nil:
						identity.Set(s.issue(t, customerID, 4*life, tt.roots(t, s)...))
					}
					select {
					case at := <-closed:
						if took := at.Sub(since); tt.stays || took < tt.after || took > tt.after+limit {
							t.Errorf("the connection was closed after %v", took)
						}
					case <-time.After(life + 2*limit):
						if !tt.stays {
							t.Error("the connection is open still")
						}
					}
				})
			})
		}
	}
}

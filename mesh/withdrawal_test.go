package mesh_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// outcomes are what became of the calls of one caller.
type outcomes struct {
	mu      sync.Mutex
	ok      int       // guarded by mu
	failed  []error   // guarded by mu
	lastOK  time.Time // guarded by mu
	firstKO time.Time // guarded by mu
}

func (o *outcomes) add(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.ok, o.lastOK = o.ok+1, time.Now()
	case o.firstKO.IsZero():
		o.firstKO = time.Now()
		fallthrough
	default:
		o.failed = append(o.failed, err)
	}
}

// TestG24_TrustIsWithdrawnUnderLoad: two callers have certificates of two authorities,
// one of which is withdrawn while both call over HTTP and gRPC. Nothing of its caller is
// served any more, over open connections and new ones; no call of the other one fails.
func TestG24_TrustIsWithdrawnUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stays, goes := tlstest.NewCA(t), tlstest.NewCA(t)
		known := func(ca *tlstest.CA, id string, roots ...*x509.Certificate) *meshtls.Identity {
			identity, err := meshtls.NewIdentity(ca.Issue(t, tlstest.Leaf{URIs: []string{id}, NotAfter: time.Now().Add(24 * time.Hour)}), roots)
			if err != nil {
				t.Fatal(err)
			}
			return identity
		}
		payment := meshtls.NewStatic(known(stays, paymentID, stays.Certificate, goes.Certificate))
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.Mesh(mesh.WithIdentity("default", payment)),
			meshtest.HTTP(80, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})),
			meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, &pingService{}) }))
		w.Apply(ledgerStrict)

		const pause, before, after = 50 * time.Millisecond, time.Second, 3 * time.Second
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		call := func(o *outcomes, one func(ctx context.Context) error) {
			load.Go(func() { // until the test has seen enough
				for ctx.Err() == nil {
					limited, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					o.add(one(limited))
					cancel()
					time.Sleep(pause)
				}
			})
		}
		results := make(map[string]*outcomes)
		for name, ca := range map[string]*tlstest.CA{"stays": stays, "goes": goes} {
			m := w.Workload("customer.shop", meshtest.Mesh(mesh.WithIdentity("default", meshtls.NewStatic(known(ca, customerID, stays.Certificate)))))
			conn, err := grpc.NewClient("mesh:///payment.shop.svc.cluster.local:9090", m.DialOptions()...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			overHTTP, overGRPC := new(outcomes), new(outcomes)
			results[name+", HTTP"], results[name+", gRPC"] = overHTTP, overGRPC
			call(overHTTP, func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://payment.shop.svc.cluster.local/", http.NoBody)
				if err != nil {
					return err
				}
				resp, err := m.Transport().RoundTrip(req)
				if err != nil {
					return err
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					return errors.New(resp.Status)
				}
				return nil
			})
			call(overGRPC, func(ctx context.Context) error {
				_, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{})
				return err
			})
		}
		time.Sleep(before)
		withdrawn := time.Now()
		payment.Set(known(stays, paymentID, stays.Certificate))
		time.Sleep(after)
		stop()
		load.Wait()
		for name, o := range results {
			switch name {
			case "stays, HTTP", "stays, gRPC":
				if len(o.failed) > 0 || o.ok < int((before+after)/pause)/2 {
					t.Errorf("%s: %d calls are served, and %d fail: %v", name, o.ok, len(o.failed), errors.Join(o.failed[:min(3, len(o.failed))]...))
				}
			default:
				if o.ok == 0 || o.firstKO.Before(withdrawn) || o.lastOK.After(withdrawn) {
					t.Errorf("%s: %d calls are served, the last %v after the withdrawal, the first that fails %v after it", name, o.ok, o.lastOK.Sub(withdrawn), o.firstKO.Sub(withdrawn))
				}
			}
		}
	})
}

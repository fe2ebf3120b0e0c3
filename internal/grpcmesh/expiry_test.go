package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// TestV25_AConnectionIsReplacedBeforeItsCertificatesExpire: no call fails, and
// none goes over the old connection when its certificates are no longer good.
func TestV25_AConnectionIsReplacedBeforeItsCertificatesExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ca := f.identify(paymentID)
		own := f.identities["default"].(*meshtls.Static)
		issue := func(life time.Duration) {
			now := time.Now()
			cert := ca.Issue(t, tlstest.Leaf{URIs: []string{paymentID}, NotBefore: now, NotAfter: now.Add(life)})
			identity, err := meshtls.NewIdentity(cert, roots(ca))
			if err != nil {
				t.Fatal(err)
			}
			own.Set(identity)
		}
		issue(20 * time.Second)
		b := &backend{}
		f.serveAs(strict(endpoint), b)
		f.configure(forward("main"), mutual(cluster("main", endpoint)))
		client := f.client()
		opened := func() int {
			all, _ := f.seen.connections()
			return len(all)
		}
		call := func(after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			if _, err := client.EmptyCall(withTimeout(t), &grpc_testing.Empty{}); err != nil {
				t.Errorf("after %v more: %v", after, err)
			}
			if got := opened(); got != want {
				t.Errorf("after %v more: %d connections were opened, want %d", after, got, want)
			}
		}
		call(0, 1)
		issue(time.Hour)
		call(17*time.Second, 1)
		call(2*time.Second, 2) // a tenth of the certificate's life before its end
		call(10*time.Second, 2)
	})
}

package grpcmesh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/discovery"
)

// A call that an injected delay holds back at its server does not outlive the mesh, and
// is not served behind its end.
func TestACallInAnInjectedDelayIsRefusedWhenTheServersMeshIsClosed(t *testing.T) {
	t.Parallel()
	for _, kind := range callKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				in := plaintext(endpoint)
				in.Chains[0].Filters = []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{
					Delay: &discovery.FaultDelay{Fixed: time.Hour, PerMillion: 1_000_000},
				}}}
				b := &backend{}
				f.serveAs(in, b)
				f.forwardTo(endpoint)
				client := f.client()
				ended := make(chan error, 1)
				begun := time.Now()
				go func() { ended <- kind.call(t.Context(), client) }()
				time.Sleep(time.Minute)
				if err := f.listeners.Close(); err != nil {
					t.Error(err)
				}
				if err := <-ended; status.Code(err) != codes.Unavailable || time.Since(begun) != time.Minute {
					t.Errorf("it ended with %v after %v", err, time.Since(begun))
				}
				if n := b.calls.Load(); n > 0 {
					t.Errorf("%d calls reached the application", n)
				}
			})
		})
	}
}

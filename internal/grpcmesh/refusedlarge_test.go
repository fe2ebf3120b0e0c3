package grpcmesh_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/outcome"
)

// TestBR12_ALargeRequestThatIsRefusedIsSentAgain: of more than 256 KiB gRPC keeps
// nothing, and does not say that the server has not processed it but in its text. The
// request is at hand all the same.
func TestBR12_ALargeRequestThatIsRefusedIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, goAway := range []bool{false, true} {
		for _, size := range []int{1, 300 << 10} {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprintf("GOAWAY %t, %d bytes, when it is written %t", goAway, size, late), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						f := newFixture(t)
						const other = "10.0.0.2:9090"
						b := new(backend)
						f.serve(other, b)
						r := &refuser{goAway: goAway, release: make(chan struct{})}
						if late {
							time.AfterFunc(time.Second, func() { close(r.release) })
						} else {
							close(r.release)
						}
						f.serveRefusing(endpoint, r)
						f.configure(retrying(0, 0), cluster("main", endpoint, other))
						client := f.client()
						const calls = 4
						for range calls {
							request := &grpc_testing.SimpleRequest{Payload: &grpc_testing.Payload{Body: make([]byte, size)}}
							if _, err := client.UnaryCall(withTimeout(t), request); err != nil {
								t.Error(err)
							}
						}
						refused := 0
						for _, a := range f.seen.tried() {
							if a.Outcome.Kind == outcome.RefusedStream {
								refused++
							}
						}
						if n := int(r.arrived.Load()); n == 0 || n != refused || b.calls.Load() != calls {
							t.Errorf("%d requests were refused, %d are told of, and %d processed, want all %d", n, refused, b.calls.Load(), calls)
						}
					})
				})
			}
		}
	}
}

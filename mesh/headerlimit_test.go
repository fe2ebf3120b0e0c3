package mesh_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/mesh"
)

// TestBH3_ALimitThatCannotBeRaisedIsWarnedOf: the servers have started with what the
// configuration allowed then, and go on.
func TestBH3_ALimitThatCannotBeRaisedIsWarnedOf(t *testing.T) {
	t.Parallel()
	log := new(lines)
	with := func(address, fields string) *listenerv3.Listener {
		return withManager(t, rawListener(t, address, "", "", ""), fields)
	}
	x := newRawXDS(t)
	s := serveRawServers(t, x, func(address string) *listenerv3.Listener { return with(address, `"maxRequestHeadersKb": 100`) },
		http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), new(grpc_testing.UnimplementedTestServiceServer),
		mesh.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	for _, protocol := range authorizationProtocols {
		_, _ = s.send(t, protocol, nil, nil) // of gRPC nothing is implemented
	}
	const warning = "max_request_headers_kb has no effect above what the server reads"
	if strings.Contains(log.String(), warning) {
		t.Fatalf("a warning at the start:\n%s", log)
	}
	x.set(with(s.web, `"maxRequestHeadersKb": 200`), with(s.calls, `"maxRequestHeadersKb": 200`))
	for _, address := range []string{s.web, s.calls} {
		limit := time.Now().Add(20 * time.Second)
		for !strings.Contains(log.String(), "listener="+address) {
			if time.Now().After(limit) {
				t.Fatalf("no warning about %s:\n%s", address, log)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	if got := strings.Count(log.String(), warning); got != 2 {
		t.Errorf("%d warnings:\n%s", got, log)
	}
}

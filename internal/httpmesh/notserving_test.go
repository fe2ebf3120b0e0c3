package httpmesh

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/inbound"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/observe"
)

// changing is a source whose inbound configuration a test changes.
type changing struct {
	served
	notify func(discovery.Update[*discovery.Inbound])
}

func (c *changing) WatchInbound(_ string, notify func(discovery.Update[*discovery.Inbound])) func() {
	c.notify = notify
	return c.served.WatchInbound("", notify)
}

// Without a configuration the requests of open connections are refused as those of an
// endpoint that is not there, what runs is finished, and peers are sent away (gRFC A36).
func TestX73_AListenerThatDoesNotServeRefusesRequestsAndFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				in := strict()
				in.Chains[0].TLS, in.Chains[0].Match = nil, discovery.ChainMatch{}
				source := &changing{served: served{in}}
				listeners := inbound.New(inbound.Options{Source: source, Hooks: &observe.Hooks{}})
				defer listeners.Close()
				network := new(memnet.Network)
				inner, err := network.Listen("10.0.0.1:8080")
				if err != nil {
					t.Fatal(err)
				}
				ln, err := listeners.Listen(t.Context(), inner)
				if err != nil {
					t.Fatal(err)
				}
				seen := 0
				server := &http.Server{ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), Handler: &Handler{
					Listeners: listeners, Hooks: &observe.Hooks{}, Next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						seen++
						if r.URL.Path == "/slow" {
							time.Sleep(5 * time.Second)
						}
					}),
				}}
				server.Protocols.SetHTTP1(true)
				server.Protocols.SetUnencryptedHTTP2(true)
				ended := make(chan struct{})
				go func() { // until Close
					defer close(ended)
					_ = server.Serve(ln)
				}()
				dials := 0
				tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
					dials++
					return network.DialContext(ctx, "tcp", address)
				}}
				tr.Protocols.SetHTTP1(version == "HTTP/1.1")
				tr.Protocols.SetUnencryptedHTTP2(version == "HTTP/2")
				get := func(path string) (int, error) {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://10.0.0.1:8080"+path, http.NoBody)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := tr.RoundTrip(req)
					if err != nil {
						return 0, err
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					return resp.StatusCode, resp.Body.Close()
				}
				if code, err := get("/"); code != http.StatusOK {
					t.Fatalf("status %d, %v", code, err)
				}
				running := make(chan int, 1)
				go func() {
					code, _ := get("/slow")
					running <- code
				}()
				synctest.Wait()
				if version == "HTTP/1.1" { // so that there is a connection that waits
					if code, err := get("/"); code != http.StatusOK {
						t.Fatalf("status %d, %v", code, err)
					}
				}
				source.notify(discovery.Update[*discovery.Inbound]{Err: discovery.ErrNotFound})
				before := seen
				if code, err := get("/"); code != http.StatusServiceUnavailable {
					t.Errorf("over the open connection: status %d, %v", code, err)
				}
				synctest.Wait()
				if code, err := get("/"); err == nil {
					t.Errorf("over a new connection: status %d", code)
				}
				if code := <-running; code != http.StatusOK {
					t.Errorf("what ran before has status %d", code)
				}
				if seen != before {
					t.Errorf("the application has seen %d requests meanwhile", seen-before)
				}
				source.notify(discovery.Update[*discovery.Inbound]{Value: in})
				if code, err := get("/"); code != http.StatusOK {
					t.Errorf("after it came back: status %d, %v", code, err)
				}
				tr.CloseIdleConnections()
				_ = server.Close()
				<-ended
			})
		})
	}
}

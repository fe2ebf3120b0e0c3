package mesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/mesh"
)

const (
	drainingWeb = "10.0.0.50:80"
	drainingRPC = "10.0.0.50:90"
	drainingRaw = "10.0.0.50:70"
)

// draining is a process that drains while it serves something of every kind, and calls
// others in the meantime.
type draining struct {
	pingService
	*ground

	release chan struct{}
	rpc     *grpc.ClientConn

	mu      sync.Mutex
	arrived int              // guarded by mu; requests whose handler waits
	ends    map[string]error // guarded by mu; of what has run
	running sync.WaitGroup
}

func newDraining(t *testing.T) *draining {
	t.Helper()
	d := &draining{ground: &ground{t: t, network: newGroundNetwork()}, release: make(chan struct{}), ends: make(map[string]error)}
	d.plane = adstest.Serve(t, adstest.Config{Network: d.network})
	d.payment(1)
	d.payment(2)
	d.plane.Set(tree(1, 2)...)
	for _, address := range []string{drainingWeb, drainingRPC, drainingRaw} {
		d.plane.Set(rawListener(t, address, "", "", ""))
	}
	d.join(&bootstrap.Config{
		Servers: []bootstrap.Server{d.server("xds.test")}, Node: bootstrap.Node{ID: "customer-1"}, ServerListenerTemplate: "inbound/%s",
	})
	web, rpc, raw := d.listen(drainingWeb), d.listen(drainingRPC), d.listen(drainingRaw)
	server := d.mesh.Server(d)
	calls := grpc.NewServer(d.mesh.ServerOptions()...)
	grpc_testing.RegisterTestServiceServer(calls, d)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(web) })
	serving.Go(func() { _ = calls.Serve(rpc) })
	serving.Go(func() { // an application with a protocol of its own
		for {
			conn, err := raw.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	var err error
	d.rpc, err = grpc.NewClient("passthrough:///"+drainingRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return d.network.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.rpc.Close()
		_ = server.Close()
		calls.Stop()
		_ = raw.Close()
		serving.Wait()
	})
	return d
}

func (d *draining) listen(address string) net.Listener {
	d.t.Helper()
	inner, err := d.network.Listen(address)
	if err != nil {
		d.t.Fatal(err)
	}
	ln, err := d.mesh.Serve(d.t.Context(), inner)
	if err != nil {
		d.t.Fatal(err)
	}
	return ln
}

// wait is what handlers do.
func (d *draining) wait(ctx context.Context) {
	d.mu.Lock()
	d.arrived++
	d.mu.Unlock()
	select {
	case <-d.release:
	case <-ctx.Done():
	}
}

func (d *draining) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/slow":
		d.wait(r.Context())
	case "/upgrade":
		echoUpgrade(w, r)
		return
	case "/out": // calls others after a while
		d.wait(r.Context())
		_, overHTTP := d.callHTTP(r.Context())
		_, overGRPC := d.callGRPC(r.Context())
		if err := errors.Join(overHTTP, overGRPC); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
	}
	_, _ = io.WriteString(w, "ok")
}

func (d *draining) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	d.wait(ctx)
	return &grpc_testing.SimpleResponse{}, nil
}

// get asks for a path over a connection of its own.
func (d *draining) get(path string, version2 bool) error {
	transport := &http.Transport{DialContext: d.network.DialContext, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(!version2)
	transport.Protocols.SetUnencryptedHTTP2(version2)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.WithoutCancel(d.t.Context()), http.MethodGet, "http://"+drainingWeb+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || string(body) != "ok" {
		return fmt.Errorf("status %d, %q: %w", resp.StatusCode, body, err)
	}
	return nil
}

// echo is a connection that says something before and after the release.
func (d *draining) echo(conn net.Conn) error {
	defer conn.Close()
	if err := echoes(conn); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { // ends with the connection
		_, err := conn.Read(make([]byte, 1))
		ended <- err
	}()
	select {
	case <-d.release:
	case err := <-ended:
		return err
	}
	_, err := io.WriteString(conn, "x")
	return errors.Join(err, <-ended)
}

// runs are what runs while the process drains, each until the release.
var runs = map[string]func(d *draining) error{
	"a request of HTTP/1.1":         func(d *draining) error { return d.get("/slow", false) },
	"a request of HTTP/2":           func(d *draining) error { return d.get("/slow", true) },
	"a request whose handler calls": func(d *draining) error { return d.get("/out", false) },
	"a connection of its own protocol": func(d *draining) error {
		conn, err := d.network.DialContext(context.Background(), "tcp", drainingRaw)
		if err != nil {
			return err
		}
		return d.echo(conn)
	},
	"a connection that was upgraded": func(d *draining) error {
		conn, err := d.network.DialContext(context.Background(), "tcp", drainingWeb)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil {
			return err
		}
		buffered := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(buffered, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			return fmt.Errorf("%v, %w", resp, err)
		}
		return d.echo(conn)
	},
	"a unary call": func(d *draining) error {
		_, err := grpc_testing.NewTestServiceClient(d.rpc).UnaryCall(context.Background(), new(grpc_testing.SimpleRequest))
		return err
	},
	"a stream": func(d *draining) error {
		stream, err := grpc_testing.NewTestServiceClient(d.rpc).FullDuplexCall(context.Background())
		if err != nil {
			return err
		}
		for range 2 {
			if err := stream.Send(new(grpc_testing.StreamingOutputCallRequest)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if _, err := stream.Recv(); err != nil {
				return err
			}
			select {
			case <-d.release:
			case <-stream.Context().Done():
			}
		}
		_ = stream.CloseSend() // never fails
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	},
}

func (d *draining) start() {
	for name, run := range runs {
		d.running.Go(func() {
			err := run(d)
			d.mu.Lock()
			defer d.mu.Unlock()
			d.ends[name] = err
		})
	}
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.arrived != 4 || len(d.ends) > 0 {
		d.t.Fatalf("%d requests have arrived, ended are %v", d.arrived, d.ends)
	}
}

// TestBD4_BD5_WhatRunsWhenAProcessDrains is finished whatever happens meanwhile, or is cut
// off when the time is over.
func TestBD4_BD5_WhatRunsWhenAProcessDrains(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		within time.Duration // the time that the drain has; 0 is that it had ended before
		// event happens after ten seconds.
		event func(d *draining)
		// finishes is whether Drain waits for what runs, which ends after a minute. after
		// is when it ends otherwise, and cut whether what runs does, too.
		finishes bool
		after    time.Duration
		cut      bool
		want     string // the error
	}{
		{name: "nothing happens", within: time.Hour, event: func(*draining) {}, finishes: true},
		{name: "the listeners are changed", within: time.Hour, event: func(d *draining) {
			for _, address := range []string{drainingWeb, drainingRPC, drainingRaw} {
				d.plane.Set(rawListener(d.t, address, "", "", `{"name": "rbac", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"action": "ALLOW"}}},`))
			}
		}, finishes: true},
		{name: "the listeners are removed", within: time.Hour, event: func(d *draining) {
			d.plane.Remove(listenerURL, "inbound/"+drainingWeb, "inbound/"+drainingRPC, "inbound/"+drainingRaw)
		}, finishes: true},
		{name: "the endpoints are others", within: time.Hour, event: func(d *draining) { d.plane.Set(groundEndpoints(2)...) }, finishes: true},
		{name: "the control plane goes", within: time.Hour, event: func(d *draining) { d.plane.Server.Stop() }, finishes: true},
		{name: "it is drained once more, for less time", within: time.Hour, event: func(d *draining) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			begun := time.Now()
			if _, err := d.mesh.Drain(ctx, mesh.DrainPolicy{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
				d.t.Errorf("the other drain: %v after %v", err, time.Since(begun))
			}
		}, finishes: true},
		{name: "it is drained once more, for no time", within: time.Hour, event: func(d *draining) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := d.mesh.Drain(ctx, mesh.DrainPolicy{}); !errors.Is(err, context.Canceled) {
				d.t.Errorf("the other drain: %v", err)
			}
		}, finishes: true},
		{name: "the time is over", within: 30 * time.Second, event: func(*draining) {}, after: 30 * time.Second, cut: true, want: "6 requests and 6 connections cut off"},
		{name: "there was no time", event: func(*draining) {}, cut: true, want: "6 requests and 6 connections cut off"},
		// Servers are the application's, and what they serve goes on, but for calls.
		{name: "the mesh is closed", within: time.Hour, event: func(d *draining) { _ = d.mesh.Close() }, after: 10 * time.Second, want: "6 requests and 2 connections still open: mesh closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDraining(t)
				d.works()
				d.start()
				ctx, cancel := context.WithTimeout(context.Background(), tt.within)
				defer cancel()
				begun := time.Now()
				var report mesh.DrainReport
				ended := make(chan error, 1)
				go func() { // ends with Drain
					var err error
					report, err = d.mesh.Drain(ctx, mesh.DrainPolicy{})
					ended <- err
				}()
				<-d.mesh.Draining()
				if err := d.mesh.Ready(); err == nil {
					t.Error("it is ready")
				}
				time.Sleep(10 * time.Second)
				tt.event(d)
				if tt.finishes {
					synctest.Wait()
					select {
					case err := <-ended:
						t.Fatalf("it has ended while something runs: %v", err)
					case <-time.After(time.Minute):
					}
					d.works() // the process itself calls others
					close(d.release)
				}
				err := <-ended
				took := time.Since(begun)
				if !tt.finishes {
					close(d.release)
				}
				d.running.Wait()
				switch {
				case tt.finishes && (err != nil || report.Finished != 6 || report.Cut+report.ConnectionsCut != 0 || took > 2*time.Minute):
					t.Errorf("it ended after %v: %v, %+v", took, err, report)
				case !tt.finishes && (err == nil || !strings.Contains(err.Error(), tt.want) || took < tt.after || took > max(tt.after, 10*time.Second)):
					t.Errorf("it ended after %v: %v, %+v", took, err, report)
				}
				for name, err := range d.ends {
					fails := tt.cut || !tt.finishes && name == "a request whose handler calls"
					if (err != nil) != fails {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		})
	}
}

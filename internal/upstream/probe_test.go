package upstream

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/health"
)

func TestWhatAnAnswerMustBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		check  health.HTTP
		header http.Header
		want   string
	}{
		"the body":                 {check: health.HTTP{Path: "/", Receive: [][]byte{[]byte("all"), []byte("well")}}, want: "0s: success"},
		"another body":             {check: health.HTTP{Path: "/", Receive: [][]byte{[]byte("well"), []byte("all")}}, want: "0s: failure: the body is not what it must be"},
		"a body that is too long":  {check: health.HTTP{Path: "/", BodyLimit: 3, Receive: [][]byte{[]byte("well")}}, want: "0s: failure: the body is not what it must be"},
		"another status":           {check: health.HTTP{Path: "/", Expected: []health.Statuses{{Start: 204, End: 205}}}, want: "0s: failure: status 200"},
		"the service":              {check: health.HTTP{Path: "/", Service: &discovery.StringMatch{Value: "pay"}}, header: http.Header{checkedHeader: {"pay"}}, want: "0s: success"},
		"another service":          {check: health.HTTP{Path: "/", Service: &discovery.StringMatch{Value: "pay"}}, header: http.Header{checkedHeader: {"buy"}}, want: `0s: failure: it belongs to the service "buy"`},
		"HTTP/2":                   {check: health.HTTP{Path: "/", Codec: health.HTTP2}, want: "0s: success"},
		"a body of the request":    {check: health.HTTP{Path: "/", Method: "POST", Body: []byte("ping")}, want: "0s: success"},
		"without headers":          {check: health.HTTP{Path: "/", Remove: []string{"user-agent"}, Set: []health.Header{{Name: "x-a", Value: "1"}, {Name: "x-a", Value: "2"}}}, want: "0s: success"},
		"degraded in all":          {check: health.HTTP{Path: "/"}, header: http.Header{degradedHeader: {"1"}}, want: "0s: degraded"},
		"a host of its own":        {check: health.HTTP{Path: "/", Host: "check.shop"}, want: "0s: success"},
		"a host of the endpoint's": {check: health.HTTP{Path: "/", Host: "check.shop"}, want: "0s: success"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := watchHealth(w)
				var body atomic.Value
				p := new(patient)
				p.status.Store(http.StatusOK)
				p.header.Store(&c.header)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					body.Store(string(b))
					p.serve(rw, r)
				})
				r := result(checkedBy(&health.Config{Timeout: time.Second, Interval: time.Minute, NoTrafficInterval: time.Minute, HTTP: &c.check}), paymentAddress)
				if strings.HasSuffix(name, "endpoint's") {
					r["payment"].Endpoints.Localities[0].Endpoints[0].Check = &balancer.EndpointCheck{Hostname: "own.shop"}
				}
				w.hold(r)
				e.expectChecks(t, c.want)
				last := p.last.Load()
				wantHost := firstOf(map[bool]string{true: "own.shop"}[strings.HasSuffix(name, "endpoint's")], c.check.Host, "payment")
				if got := body.Load(); got != string(c.check.Body) || last.Host != wantHost || last.Proto == "HTTP/2.0" != (c.check.Codec == health.HTTP2) {
					t.Errorf("the check was %s %s of %s with the body %q", last.Proto, last.Method, last.Host, got)
				}
				if len(c.check.Remove) > 0 && (last.UserAgent() != "" || len(last.Header.Values("X-A")) != 2) {
					t.Errorf("headers %v", last.Header)
				}
			})
		})
	}
}

// An answer is one when it has ended, as for Envoy.
func TestAnAnswerThatDoesNotEndIsNone(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(http.ResponseWriter) error{
		"more and more": func(rw http.ResponseWriter) error {
			time.Sleep(time.Millisecond) // fake
			_, err := rw.Write(make([]byte, 32<<10))
			return err
		},
		"nothing more": func(rw http.ResponseWriter) error {
			time.Sleep(time.Millisecond) // fake
			return http.NewResponseController(rw).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := watchHealth(w)
				w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
					for r.Context().Err() == nil && write(rw) == nil { // until the check gives up
					}
				})
				w.hold(result(checkedBy(&health.Config{Timeout: time.Second, Interval: time.Minute, NoTrafficInterval: time.Minute, HTTP: &health.HTTP{Path: "/"}}), paymentAddress))
				time.Sleep(2 * time.Second) // fake
				e.expectChecks(t, "1s: unreachable: context deadline exceeded")
			})
		})
	}
}

func TestChecksKeepTheirConnectionAndFindANewOne(t *testing.T) {
	t.Parallel()
	for _, reuse := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			e := watchHealth(w)
			server := w.serve(paymentAddress, func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.UserAgent(), "Inboard") && connection(r) == 1 && r.Header.Get("X-Last") != "" {
					rw.Header().Set("Connection", "close")
				}
			})
			config := httpCheck()
			config.CloseConnection = !reuse
			w.one(checkedBy(config))
			time.Sleep(4500 * time.Millisecond)
			want := int64(1)
			if !reuse {
				want = 5
			}
			if got := server.connections.Load(); got != want {
				t.Errorf("%d connections for 5 checks, want %d", got, want)
			}
			e.expectChecks(t, "0s: success", "1s: success", "2s: success", "3s: success", "4s: success")
			// The server closes what is idle; the next check is over a new one.
			server.SetKeepAlivesEnabled(false)
			server.SetKeepAlivesEnabled(true)
			time.Sleep(time.Second)
			e.expectChecks(t, "5s: success")
		})
	}
}

func TestGRPCChecksAskTheHealthService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := watchHealth(w)
		listener, err := w.network.Listen(paymentAddress)
		if err != nil {
			t.Fatal(err)
		}
		service, server := grpchealth.NewServer(), grpc.NewServer()
		healthpb.RegisterHealthServer(server, service)
		done := make(chan struct{})
		go func() { // ends with the server
			defer close(done)
			_ = server.Serve(listener)
		}()
		defer func() {
			server.Stop()
			<-done
		}()
		service.SetServingStatus("pay", healthpb.HealthCheckResponse_SERVING)
		w.one(checkedBy(&health.Config{
			Timeout: time.Second, Interval: time.Second, NoTrafficInterval: time.Second, UnhealthyThreshold: 3, HealthyThreshold: 1,
			GRPC: &health.GRPC{Service: "pay", Set: []health.Header{{Name: "x-a", Value: "b"}}},
		}))
		e.expectChecks(t, "0s: success")
		service.SetServingStatus("pay", healthpb.HealthCheckResponse_NOT_SERVING)
		time.Sleep(1500 * time.Millisecond)
		e.expectChecks(t, "1s: failure: serving status 2")
		e.expect(t, "1s: 10.0.0.1:80 is unfit") // at once: it said so
		service.SetServingStatus("pay", healthpb.HealthCheckResponse_SERVING)
		time.Sleep(time.Second)
		e.expect(t, "2s: 10.0.0.1:80 is fit")
		e.expectChecks(t, "2s: success")
		w.one(checkedBy(&health.Config{
			Timeout: time.Second, Interval: time.Minute, NoTrafficInterval: time.Minute, GRPC: &health.GRPC{Service: "unknown"},
		}))
		e.expectChecks(t, `2.5s: failure: grpc-status "5": unknown service`)
	})
}

func TestTCPChecksConnectAndCompare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := watchHealth(w)
		listener, err := w.network.Listen(paymentAddress)
		if err != nil {
			t.Fatal(err)
		}
		var accepted atomic.Int64
		var serving sync.WaitGroup
		serving.Go(func() { // until the listener is closed
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				accepted.Add(1)
				serving.Go(func() { answerPings(conn) })
			}
		})
		config := &health.Config{
			Timeout: time.Second, Interval: time.Second, NoTrafficInterval: time.Second,
			TCP: &health.TCP{Send: []byte("ping"), Receive: [][]byte{[]byte("po"), []byte("ng")}},
		}
		w.one(checkedBy(config))
		time.Sleep(2500 * time.Millisecond)
		e.expectChecks(t, "0s: success", "1s: success", "2s: success")
		if got := accepted.Load(); got != 1 {
			t.Errorf("%d connections for three checks, want one", got)
		}
		other := *config
		other.TCP = &health.TCP{Send: []byte("ping"), Receive: [][]byte{[]byte("gong")}}
		w.one(checkedBy(&other))
		time.Sleep(1100 * time.Millisecond)
		e.expectChecks(t, "3.5s: unreachable: i/o timeout")
		plain := *config
		plain.TCP = &health.TCP{}
		w.one(checkedBy(&plain))
		time.Sleep(1500 * time.Millisecond)
		e.expectChecks(t, "3.6s: success", "4.6s: success")
		if got := accepted.Load(); got != 4 {
			t.Errorf("%d connections, want four: one that only connects says nothing twice", got)
		}
		_ = listener.Close()
		time.Sleep(time.Second)
		e.expectChecks(t, "5.6s: unreachable: dial mem 10.0.0.1:80: connection refused")
		serving.Wait()
	})
}

// answerPings answers "pong" to every "ping".
func answerPings(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 4)
	for {
		if _, err := io.ReadFull(conn, buffer); err != nil {
			return
		}
		for _, part := range []string{"p", "ong"} {
			if _, err := io.WriteString(conn, part); err != nil {
				return
			}
		}
	}
}

func TestChecksAreMadeOverTheClustersOwnTLS(t *testing.T) {
	t.Parallel()
	for name, check := range map[string]health.Config{
		"HTTP":   {HTTP: &health.HTTP{Path: "/"}},
		"HTTP/2": {HTTP: &health.HTTP{Path: "/", Codec: health.ALPN}},
		"TCP":    {TCP: &health.TCP{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, _, _ := secureWorld(t, "h2", "http/1.1")
				e := watchHealth(w)
				check.Timeout, check.Interval, check.NoTrafficInterval = time.Second, time.Second, time.Second
				w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.HealthCheck = &check
				})
				e.expectChecks(t, "0s: success")
				w.one(func(c *discovery.Cluster) {
					mutualTLS(c)
					c.TLS.SANs = []discovery.StringMatch{{Value: "spiffe://cluster.local/ns/shop/sa/other"}}
					c.HealthCheck = &check
				})
				time.Sleep(1100 * time.Millisecond)
				e.expect(t, "1s: 10.0.0.1:80 is unfit") // who it is not is not asked either
			})
		})
	}
}

func TestHealthRepliesAreReadOrRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		frame string
		want  uint64
		bad   bool
	}{
		"serving":              {frame: "\x00\x00\x00\x00\x02\x08\x01", want: 1},
		"empty":                {frame: "\x00\x00\x00\x00\x00"},
		"fields of the future": {frame: "\x00\x00\x00\x00\x14\x12\x02ab\x1d1234\x21\x31\x32\x33\x34\x35\x36\x37\x38\x08\x01", want: 1},
		"compressed":           {frame: "\x01\x00\x00\x00\x02\x08\x01", bad: true},
		"nothing":              {frame: "", bad: true},
		"too short":            {frame: "\x00\x00\x00\x00\x03\x08\x01", bad: true},
		"a field cut off":      {frame: "\x00\x00\x00\x00\x02\x12\x05", bad: true},
		"a group":              {frame: "\x00\x00\x00\x00\x01\x0b", bad: true},
	} {
		got, err := healthReply([]byte(c.frame))
		if got != c.want && !c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %d and %v", name, got, err)
		}
	}
}

func FuzzHealthReply(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x04\x12\x02ab"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if status, err := healthReply(frame); err != nil && status != 0 {
			t.Errorf("status %d and error %v", status, err)
		}
	})
}

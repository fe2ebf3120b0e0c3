package httpmesh

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// secondCluster adds the cluster "v2" at otherAddress, with this weight of a hundred.
func secondCluster(weight uint32) func(*discovery.Target) {
	return func(target *discovery.Target) {
		v2 := *target.Clusters["v1"].Cluster
		v2.Name = "v2"
		target.Clusters["v2"] = discovery.ClusterResult{Cluster: &v2, Endpoints: &discovery.Assignment{
			Localities: []balancer.LocalityEndpoints{{Weight: 1, Endpoints: []balancer.Endpoint{{Address: otherAddress, Health: balancer.Healthy}}}},
		}}
		top(target).Forward.Clusters = []discovery.WeightedCluster{{Name: "v1", Weight: 100 - weight}, {Name: "v2", Weight: weight}}
	}
}

// Weighted clusters of 80 and 20: the share is within 1.6 points (five standard
// deviations of 16,000 calls), and a retry stays in its cluster.
func TestS15_WeightedClustersGetTheirSharesAndKeepTheirRetries(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		calls := calltest.Many()
		var mu sync.Mutex
		seen := make(map[string][]string, calls) // clusters by call
		retried := func(call string) bool { return strings.HasSuffix(call, "0") }
		serve := func(cluster string) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				call := r.Header.Get("X-Call")
				mu.Lock()
				defer mu.Unlock()
				if seen[call] = append(seen[call], cluster); retried(call) && len(seen[call]) == 1 {
					rw.WriteHeader(http.StatusServiceUnavailable)
				}
			}
		}
		w := newWorld(t, newTarget(protocol, secondCluster(20), retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx})), serve("v1"))
		w.serve(otherAddress, serve("v2"))
		for i := range calls {
			req := newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)
			req.Header.Set("X-Call", strconv.Itoa(i))
			_ = readAll(t, w.do(req))
		}
		canaries := 0
		for call, clusters := range seen {
			want := 1
			if retried(call) {
				want = 2
			}
			if len(clusters) != want || clusters[0] != clusters[want-1] {
				t.Errorf("call %s went to %v", call, clusters)
			}
			if clusters[0] == "v2" {
				canaries++
			}
		}
		calltest.Share(t, "v2", canaries, calls, 0.2)
		w.idle()
	})
}

// Each condition of retry_on, with what it holds for and what it does not.
func TestS23_EachConditionOverHTTP(t *testing.T) {
	t.Parallel()
	answer := func(status int, header ...string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				rw.Header().Set(header[i], header[i+1])
			}
			rw.WriteHeader(status)
		}
	}
	reset := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	hangs := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	answers := map[string]http.HandlerFunc{
		"200": answer(200), "409": answer(409), "418": answer(418), "500": answer(500), "502": answer(502), "503": answer(503), "504": answer(504),
		"503 of a rate limit": answer(503, "X-Envoy-Ratelimited", "true"),
		"404 with a header":   answer(404, "X-Again", "1"),
		"a reset":             reset,
		"too slow":            hangs,
		"nobody is there":     nil,
	}
	holds := map[string][]string{
		"":                       {},
		"5xx":                    {"500", "502", "503", "504", "a reset", "too slow", "nobody is there"},
		"gateway-error":          {"502", "503", "504", "a reset", "too slow", "nobody is there"},
		"reset":                  {"a reset", "too slow", "nobody is there"},
		"reset-before-request":   {"nobody is there"},
		"connect-failure":        {"nobody is there"},
		"refused-stream":         {},
		"retriable-4xx":          {"409"},
		"retriable-status-codes": {"418"},
		"retriable-headers":      {"404 with a header"},
		"envoy-ratelimited":      {"503 of a rate limit"},
		"5xx,envoy-ratelimited":  {"500", "502", "503", "504", "503 of a rate limit", "a reset", "too slow", "nobody is there"},
	}
	for _, on := range slices.Sorted(maps.Keys(holds)) {
		for name, serve := range answers {
			t.Run(on+"/"+name, func(t *testing.T) {
				t.Parallel()
				onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
					conditions, err := retry.ParseConditions(on)
					if err != nil {
						t.Fatal(err)
					}
					w := newWorld(t, newTarget(protocol, retrying(retry.Policy{
						MaxRetries: 2, On: conditions, RetriableStatusCodes: []int{418}, PerTryTimeout: time.Second,
					}), func(target *discovery.Target) {
						if conditions&retry.OnRetriableHeaders != 0 {
							top(target).Forward.RetryHeaders = &discovery.RetryHeaders{
								Response: []discovery.HeaderMatch{{Name: "x-again", Kind: discovery.HeaderPresent, Present: true}},
							}
						}
					}), serve)
					resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, nil))
					if err == nil {
						_ = resp.Body.Close()
					} else if _, ok := errors.AsType[*meshfail.Error](err); !ok {
						t.Errorf("got %v", err)
					}
					w.idle()
					want := 1
					if slices.Contains(holds[on], name) {
						want = 3
					}
					if got := w.lastCall().Attempts; got != want {
						t.Errorf("%d attempts, want %d", got, want)
					}
				})
			})
		}
	}
}

// refuseStreams serves HTTP/2 at an address, and says of every request that it has
// done nothing with it.
func (w *world) refuseStreams(address string) (arrived *atomic.Int64) {
	w.t.Helper()
	ln, err := w.network.Listen(address)
	if err != nil {
		w.t.Fatal(err)
	}
	arrived = new(atomic.Int64)
	var conns sync.WaitGroup
	serve := func(conn net.Conn) { // ends with the connection
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(conn, conn)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				arrived.Add(1)
				_ = f.WriteRSTStream(frame.StreamID, http2.ErrCodeRefusedStream)
			}
		}
	}
	conns.Go(func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { serve(conn) })
		}
	})
	w.t.Cleanup(func() {
		_ = ln.Close()
		w.upstreams.Close()
		conns.Wait()
	})
	return arrived
}

// A server that refuses streams is asked once more in any case (gRFC A6), and then as
// the policy says.
func TestS23_RefusedStreamsOverHTTP2(t *testing.T) {
	t.Parallel()
	for on, want := range map[retry.Conditions]int64{
		0: 2, retry.OnConnectFailure: 2, retry.OnRetriable4xx: 2,
		retry.OnRefusedStream: 4, retry.OnReset: 4, retry.On5xx: 4, retry.OnGatewayError: 4,
	} {
		t.Run(on.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, newTarget(over(discovery.HTTP2), retrying(retry.Policy{MaxRetries: 2, On: on})), nil)
				arrived := w.refuseStreams(paymentAddress)
				resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodPost, paymentURL, strings.NewReader("42")))
				e := failed(t, resp, err, outcome.RefusedStream)
				if arrived.Load() != want || int64(e.Attempts) != want {
					t.Errorf("%d requests in %d attempts, want %d", arrived.Load(), e.Attempts, want)
				}
				w.idle()
			})
		})
	}
}

// The pauses between attempts as a server sees them, over both protocols: those of
// BR5.
func TestS24_AServerSeesThePausesBetweenRetries(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	bounds := []time.Duration{25 * ms, 75 * ms, 175 * ms, 250 * ms}
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		var arrived []time.Time
		w := newWorld(t, newTarget(protocol, retrying(retry.Policy{MaxRetries: 4, On: retry.On5xx})), func(rw http.ResponseWriter, _ *http.Request) {
			arrived = append(arrived, time.Now())
			rw.WriteHeader(http.StatusServiceUnavailable)
		})
		longest := make([]time.Duration, len(bounds))
		for range 200 {
			arrived = arrived[:0]
			_ = readAll(t, w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil)))
			if len(arrived) != len(bounds)+1 {
				t.Fatalf("%d attempts", len(arrived))
			}
			for i, bound := range bounds {
				pause := arrived[i+1].Sub(arrived[i])
				if pause >= bound {
					t.Errorf("pause %d was %v, want less than %v", i+1, pause, bound)
				}
				longest[i] = max(longest[i], pause)
			}
		}
		for i, bound := range bounds {
			if longest[i] < bound/2 { // once in 2^200 runs
				t.Errorf("pause %d was never longer than %v of %v", i+1, longest[i], bound)
			}
		}
		w.idle()
	})
}

// Hosts that hang: a per-try timeout of 100 ms within 350 ms for the call.
func TestS25_HangingHostsOverHTTP(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		w := newWorld(t, newTarget(protocol, limited(350*time.Millisecond),
			retrying(retry.Policy{MaxRetries: 10, On: retry.On5xx, PerTryTimeout: 100 * time.Millisecond})),
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		for range 20 {
			begin := time.Now()
			resp, err := w.transport.RoundTrip(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
			e := failed(t, resp, err, outcome.Timeout)
			if took := time.Since(begin); took != 350*time.Millisecond || e.Attempts < 2 || e.Attempts > 4 || !e.Timeout() {
				t.Errorf("%v after %d attempts in %v", e, e.Attempts, took)
			}
		}
		w.idle()
	})
}

// Half of the calls are aborted and a twentieth is delayed, each independently of the
// other; what is aborted reaches nobody.
func TestS28_FaultsOverHTTP(t *testing.T) {
	t.Parallel()
	onBothProtocols(t, func(t *testing.T, protocol func(*discovery.Target)) {
		calls := calltest.Many()
		w := newWorld(t, newTarget(protocol, func(target *discovery.Target) {
			target.Listener.Filters = []discovery.HTTPFilter{{Name: "fault", Config: &discovery.Fault{
				Delay: &discovery.FaultDelay{Fixed: time.Second, PerMillion: 50_000},
				Abort: &discovery.FaultAbort{HTTPStatus: 503, PerMillion: 500_000},
			}}}
		}), func(http.ResponseWriter, *http.Request) {})
		aborted, delayed, both := 0, 0, 0
		for range calls {
			begin := time.Now()
			resp := w.do(newRequest(t.Context(), t, http.MethodGet, paymentURL, nil))
			_ = readAll(t, resp)
			late := time.Since(begin) == time.Second
			if resp.StatusCode == http.StatusServiceUnavailable {
				aborted++
			}
			if late {
				delayed++
			}
			if late && resp.StatusCode == http.StatusServiceUnavailable {
				both++
			}
		}
		calltest.Share(t, "aborted", aborted, calls, 0.5)
		calltest.Share(t, "delayed", delayed, calls, 0.05)
		calltest.Share(t, "both", both, calls, 0.025)
		if got := int(w.served.Load()); got != calls-aborted {
			t.Errorf("%d of %d calls were aborted, %d arrived", aborted, calls, got)
		}
		w.idle()
	})
}

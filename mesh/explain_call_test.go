package mesh_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/mesh/meshtest"
	"github.com/inboardmesh/inboard/retry"
)

const optionsYAML = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: payment, namespace: shop}
spec:
  host: payment
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment]
  http:
  - timeout: 10s
    retries: {attempts: 2, retryOn: unavailable}
    route: [{destination: {host: payment}}]
`

// What the application wants of its call is explained as it happens, over both
// protocols.
func TestExplainTellsWhatTheOptionsOfACallDo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		for _, locality := range []string{"eu/a", "eu/b", "us/a"} {
			w.Service("payment.shop", meshtest.Locality(locality), meshtest.HTTP(80, http.HandlerFunc(echoRequest)),
				meshtest.GRPC(9090, func(s grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(s, echoService{}) }))
		}
		w.Apply(optionsYAML)
		customer := w.Workload("customer.shop")
		conn, err := grpc.NewClient("mesh:///payment.shop:9090", customer.DialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		over := map[string]struct {
			explain func(ctx context.Context) (*mesh.Explanation, error)
			call    func(ctx context.Context) error
		}{
			"http": {
				func(ctx context.Context) (*mesh.Explanation, error) { return customer.Explain(post(ctx, t)) },
				func(ctx context.Context) error {
					resp, err := customer.Transport().RoundTrip(post(ctx, t))
					if err == nil {
						resp.Body.Close()
					}
					return err
				},
			},
			"grpc": {
				func(ctx context.Context) (*mesh.Explanation, error) {
					return customer.ExplainRPC(ctx, "mesh:///payment.shop:9090", explainPaths[0])
				},
				func(ctx context.Context) error {
					return conn.Invoke(ctx, explainPaths[0], new(grpc_testing.Empty), new(grpc_testing.Empty))
				},
			},
		}
		hedged := &retry.Hedge{Delay: 100 * time.Millisecond}
		for _, c := range []struct {
			name    string
			options mesh.CallOptions
			headers []string
			verdict mesh.Verdict
			// candidates and attempts are how many there are.
			candidates, attempts int
			// texts are parts of the explanation, by protocol; "" is both.
			texts map[string]string
		}{
			{
				"none", mesh.CallOptions{}, nil, mesh.VerdictForward, 3, 1,
				map[string]string{"": "ring hash of header x-user", "http": "timeouts      call 10s, attempt none", "grpc": "timeouts      call 10s, attempt none"},
			},
			{
				"a key that is hashed", mesh.CallOptions{HashKey: "order-7"}, nil, mesh.VerdictForward, 1, 1,
				map[string]string{"": "not picked: the hash leads to another endpoint"},
			},
			{
				"a region", mesh.CallOptions{Locality: balancer.Locality{Region: "eu"}}, nil, mesh.VerdictForward, 2, 1,
				map[string]string{"": "in us/a, not picked: the call prefers the locality eu"},
			},
			{
				"a zone", mesh.CallOptions{Locality: balancer.Locality{Region: "eu", Zone: "b"}}, nil, mesh.VerdictForward, 1, 1,
				map[string]string{"": "in eu/a, not picked: the call prefers the locality eu/b"},
			},
			{
				"a zone without endpoints", mesh.CallOptions{Locality: balancer.Locality{Region: "asia"}}, nil, mesh.VerdictForward, 3, 1,
				map[string]string{"": "3, of which 3 can be picked"},
			},
			{
				"a time that has passed", mesh.CallOptions{Timeout: -time.Second}, nil, mesh.VerdictNoTime, 3, 0,
				map[string]string{"": "verdict       no-time: not sent: the timeout of the call, -1s, has passed"},
			},
			{
				"more time than there is", mesh.CallOptions{MinTime: 11 * time.Second}, nil, mesh.VerdictNoTime, 3, 0,
				map[string]string{"": "verdict       no-time: not sent: 10s are left, and it needs 11s"},
			},
			{
				"time enough", mesh.CallOptions{MinTime: 9 * time.Second}, nil, mesh.VerdictForward, 3, 1,
				map[string]string{"": ", none begins with less than 9s left\n"},
			},
			{
				"its own timeout", mesh.CallOptions{Timeout: time.Second, MinTime: 2 * time.Second}, nil, mesh.VerdictNoTime, 3, 0,
				map[string]string{"": "not sent: 1s are left, and it needs 2s"},
			},
			{
				"hedging of what must not be repeated", mesh.CallOptions{Hedge: hedged, Timeout: time.Second}, []string{slowHeader}, mesh.VerdictForward, 3, 1,
				map[string]string{
					"http": ", not hedged: POST is not safe, and there is no Idempotency-Key\n",
					"grpc": ", not hedged: this program knows no idempotency_level of the method, and there is no idempotency-key\n",
				},
			},
			{
				"hedging", mesh.CallOptions{Hedge: hedged, Timeout: time.Second}, []string{slowHeader, "idempotency-key"}, mesh.VerdictForward, 3, 3,
				map[string]string{"http": ", hedged after 100ms\n", "grpc": ", hedged after 100ms, unless it is a stream\n"},
			},
			{
				"hedging without retries", mesh.CallOptions{Hedge: hedged, Timeout: time.Second, MaxRetries: new(uint32(0))}, []string{slowHeader, "idempotency-key"}, mesh.VerdictForward, 3, 1,
				map[string]string{"": "retries       none, not hedged: attempts beside the first count as retries\n"},
			},
		} {
			for protocol, do := range over {
				md := make(metadata.MD)
				for _, name := range c.headers {
					md.Set(name, "yes")
				}
				ctx := metadata.NewOutgoingContext(mesh.WithCall(t.Context(), c.options), md)
				e, err := do.explain(ctx)
				if err != nil {
					t.Fatal(err)
				}
				w.ResetCalls()
				err = do.call(ctx)
				call := w.Calls()[0]
				text := e.String()
				if e.Verdict != c.verdict || !strings.Contains(text, c.texts[""]) || !strings.Contains(text, c.texts[protocol]) || len(call.Attempts) != c.attempts {
					t.Errorf("%s, %s: %v: %d attempts, %v; no %q in\n%s", c.name, protocol, call, len(call.Attempts), err, c.texts, text)
				}
				if c.verdict == mesh.VerdictNoTime && !strings.Contains(err.Error(), e.Reason) {
					t.Errorf("%s, %s: got %v, explained %q", c.name, protocol, err, e.Reason)
				}
				checkCandidates(t, c.name+", "+protocol, e, &call, c.candidates)
			}
		}
	})
}

func post(ctx context.Context, t *testing.T) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://payment.shop/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	for name, values := range md {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	return req
}

func checkCandidates(t *testing.T, name string, e *mesh.Explanation, call *meshtest.Call, want int) {
	t.Helper()
	var candidates []string
	for _, endpoint := range e.Cluster.Endpoints {
		if endpoint.Candidate {
			candidates = append(candidates, endpoint.Address)
		}
	}
	if len(candidates) != want {
		t.Errorf("%s: candidates %v", name, candidates)
	}
	if len(call.Attempts) > 0 && !slices.Contains(candidates, call.Attempts[0].Endpoint) {
		t.Errorf("%s: went to %s, which is none of %v", name, call.Attempts[0].Endpoint, candidates)
	}
}

// The key is what is hashed, whatever the request has, and one that the balancer does
// not ask for is not said to be.
func TestExplainSaysWhatIsHashed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		for range 5 {
			w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)))
		}
		w.Apply(optionsYAML)
		customer := w.Workload("customer.shop")
		went := func(key string) (endpoints []string, hashOf []string) {
			t.Helper()
			w.ResetCalls()
			for _, user := range []string{"ann", "bob", "eve", "dan", "sue", "tom"} {
				req := post(mesh.WithCall(t.Context(), mesh.CallOptions{HashKey: key}), t)
				req.Header.Set("X-User", user)
				e, err := customer.Explain(req)
				if err != nil {
					t.Fatal(err)
				}
				hashOf = e.Cluster.HashOf
				resp, err := customer.Transport().RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			for _, call := range w.Calls() {
				endpoints = append(endpoints, call.Attempts[0].Endpoint)
			}
			slices.Sort(endpoints)
			return slices.Compact(endpoints), hashOf
		}
		if endpoints, of := went("order-7"); len(endpoints) != 1 || !slices.Equal(of, []string{"the key that the call gives"}) {
			t.Errorf("with a key: %v, of %q", endpoints, of)
		}
		if endpoints, of := went(""); len(endpoints) < 2 || !slices.Equal(of, []string{"header x-user"}) {
			t.Errorf("without one: %v, of %q", endpoints, of)
		}
		w.Apply(strings.ReplaceAll(optionsYAML, "consistentHash: {httpHeaderName: x-user}", "simple: ROUND_ROBIN"))
		if endpoints, of := went("order-7"); len(endpoints) < 2 || len(of) > 0 {
			t.Errorf("without hashing: %v, of %q", endpoints, of)
		}
	})
}

// A header that is configured and not sent is missed by somebody.
func TestExplainSaysWhichValuesAreEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)))
		w.Apply(strings.Replace(optionsYAML, "- timeout: 10s", `- headers:
      request:
        set: {x-from: "%DOWNSTREAM_REMOTE_ADDRESS%", x-user: "%REQ(x-name)%"}
        add: {x-gone: "%REQ(x-none)%"}
        remove: [x-gone]`, 1))
		customer := w.Workload("customer.shop")
		req := post(t.Context(), t)
		req.Header.Set("X-Name", "ann")
		e, err := customer.Explain(req)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := customer.Transport().RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var got echoed
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := []string{"sets x-user: %REQ(x-name)%", "without x-from: %DOWNSTREAM_REMOTE_ADDRESS% is empty here"}
		if !slices.Equal(e.Sent.Headers, want) || got.Header.Get("X-User") != "ann" || got.Header["X-From"] != nil {
			t.Errorf("explained %q, sent %v", e.Sent.Headers, got.Header)
		}
	})
}

// A body that can be had only once, and an upgrade, belong to one attempt.
func TestExplainSaysWhyABodyIsNotHedged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := meshtest.New(t)
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)))
		w.Service("payment.shop", meshtest.HTTP(80, http.HandlerFunc(echoRequest)))
		w.Apply(optionsYAML)
		customer := w.Workload("customer.shop")
		for _, c := range []struct {
			name, upgrade string
			body          io.Reader
			want          string
			attempts      int
		}{
			{"a body that can be had again", "", strings.NewReader("pay"), ", hedged after 100ms\n", 3},
			{"a body that can be had once", "", io.MultiReader(strings.NewReader("pay")), ", not hedged: the body has no GetBody\n", 1},
			{"an upgrade", "chat", http.NoBody, ", not hedged: it is an upgrade\n", 1},
		} {
			ctx := mesh.WithCall(t.Context(), mesh.CallOptions{Hedge: &retry.Hedge{Delay: 100 * time.Millisecond}, Timeout: time.Second})
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://payment.shop/", c.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Idempotency-Key": {"1"}, slowHeader: {"yes"}}
			if c.upgrade != "" {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", c.upgrade)
			}
			e, err := customer.Explain(req)
			if err != nil {
				t.Fatal(err)
			}
			w.ResetCalls()
			resp, err := customer.Transport().RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			if attempts := len(w.Calls()[0].Attempts); attempts != c.attempts || !strings.Contains(e.String(), c.want) {
				t.Errorf("%s: %d attempts, %v; no %q in\n%v", c.name, attempts, err, c.want, e)
			}
		}
	})
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/examples/paymentpb"
	"github.com/inboardmesh/inboard/mesh"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

const self = "spiffe://cluster.local/ns/shop/sa/customer"

// fakePayment answers both ways. It stands where the mesh would.
type fakePayment struct {
	paymentpb.PaymentsClient

	status int
	body   string
	err    error
	user   string // seen
}

func (f *fakePayment) RoundTrip(r *http.Request) (*http.Response, error) {
	f.user = r.Header.Get("X-User")
	if f.err != nil {
		return nil, f.err
	}
	w := httptest.NewRecorder()
	w.WriteHeader(f.status)
	_, err := io.WriteString(w, f.body)
	return w.Result(), err
}

func (f *fakePayment) Charge(ctx context.Context, r *paymentpb.ChargeRequest, _ ...grpc.CallOption) (*paymentpb.ChargeReply, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	f.user = strings.Join(md.Get("x-user"), ",")
	if f.err != nil {
		return nil, f.err
	}
	return &paymentpb.ChargeReply{User: r.GetUser(), Version: "v1", Instance: "v1-a", Caller: self}, nil
}

func TestBuy(t *testing.T) {
	t.Parallel()
	bought := `{"user":"ada","version":"v1","instance":"v1-a","caller":"` + self + `"}`
	overflow := &mesh.Error{Kind: outcome.Overflow, Cluster: "outbound|80|v2|payment", Attempts: 2, Err: errors.New("breaker is open")}
	for _, tt := range []struct {
		name    string
		via     string
		payment fakePayment
		status  int
		want    purchase
	}{
		{
			"by HTTP unless said otherwise", "", fakePayment{status: 200, body: bought}, 200,
			purchase{Via: "http", Version: "v1", Instance: "v1-a", Caller: self},
		},
		{"by gRPC", "grpc", fakePayment{}, 200, purchase{Via: "grpc", Version: "v1", Instance: "v1-a", Caller: self}},
		{
			"payment answers an error by HTTP", "http", fakePayment{status: 503, body: "payment is broken\n"}, 502,
			purchase{Via: "http", Error: &failure{Kind: "response", Message: "503 Service Unavailable: payment is broken"}},
		},
		{
			"payment answers an error by gRPC", "grpc", fakePayment{err: status.Error(codes.Unavailable, "payment is broken")}, 502,
			purchase{Via: "grpc", Error: &failure{Kind: "response", Message: "rpc error: code = Unavailable desc = payment is broken"}},
		},
		{
			"the mesh refuses by HTTP", "http", fakePayment{err: overflow}, 502,
			purchase{Via: "http", Error: &failure{Kind: "overflow", Cluster: overflow.Cluster, Attempts: 2, Message: overflow.Error()}},
		},
		{
			"the mesh refuses by gRPC", "grpc", fakePayment{err: overflow}, 502,
			purchase{Via: "grpc", Error: &failure{Kind: "overflow", Cluster: overflow.Cluster, Attempts: 2, Message: overflow.Error()}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := &customer{chargeURL: "http://payment/charge", http: &http.Client{Transport: &tt.payment}, grpc: &tt.payment}
			w := httptest.NewRecorder()
			c.buy(w, httptest.NewRequest(http.MethodGet, "/buy?user=ada&via="+tt.via, http.NoBody))
			var got purchase
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || w.Code != tt.status {
				t.Errorf("status %d: %s", w.Code, diff)
			}
			if tt.payment.user != "ada" {
				t.Errorf("payment saw user %q", tt.payment.user)
			}
		})
	}
}

func TestBuyByAnUnknownWayIsRefused(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	new(customer).buy(w, httptest.NewRequest(http.MethodGet, "/buy?via=post", http.NoBody))
	if w.Code != http.StatusBadRequest || w.Body.String() != "via \"post\": want http or grpc\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// fakeWatch is a stream of two charges.
type fakeWatch struct {
	grpc.ServerStreamingClient[paymentpb.ChargeReply]

	charges []*paymentpb.ChargeReply
}

func (f *fakePayment) Watch(context.Context, *paymentpb.WatchRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[paymentpb.ChargeReply], error) {
	return &fakeWatch{charges: []*paymentpb.ChargeReply{{Version: "v1"}, {Version: "v2"}}}, f.err
}

func (f *fakeWatch) Recv() (*paymentpb.ChargeReply, error) {
	if len(f.charges) == 0 {
		return nil, io.EOF
	}
	first := f.charges[0]
	f.charges = f.charges[1:]
	return first, nil
}

func TestWatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err    error
		status int
		want   string
	}{
		{nil, http.StatusOK, `{"via":"grpc","version":"v1"}` + "\n" + `{"via":"grpc","version":"v2"}` + "\n"},
		{errors.New("no payment"), http.StatusBadGateway, "no payment\n"},
	} {
		c := &customer{grpc: &fakePayment{err: tt.err}, ending: t.Context()}
		w := httptest.NewRecorder()
		c.watch(w, httptest.NewRequest(http.MethodGet, "/watch", http.NoBody))
		if w.Code != tt.status || w.Body.String() != tt.want {
			t.Errorf("%v: %d %s", tt.err, w.Code, w.Body)
		}
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	s := newStats()
	h := s.hooks()
	ctx, expires := t.Context(), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	h.CallEnded(ctx, &observe.Call{})
	h.AttemptEnded(ctx, &observe.Attempt{Number: 1})
	h.AttemptEnded(ctx, &observe.Attempt{Number: 2})
	h.Overflowed(observe.OverflowEvent{})
	h.BreakerChanged(observe.BreakerEvent{Cluster: "v2", From: "closed", To: "open"})
	h.CertificateChanged(observe.CertificateEvent{ID: self, NotAfter: expires})
	h.CertificateChanged(observe.CertificateEvent{ID: self, NotAfter: expires})
	h.CertificateChanged(observe.CertificateEvent{Err: errors.New("no CA")})
	h.StreamChanged(observe.StreamEvent{Connected: true})
	h.ResourceAccepted(observe.ResourceEvent{})
	w := httptest.NewRecorder()
	s.serve(w, nil)
	want := `{"calls":1,"attempts":2,"retries":1,"refused":1,"breakers":{"v2":"open"},` +
		`"certificate":{"id":"` + self + `","expires":"2030-01-01T00:00:00Z","number":2},"connected":true,"updates":1}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"--listen", "127.0.0.1:1", "--payment-http", "a:1", "--payment-grpc", "b:2"})
	if want := (options{listen: "127.0.0.1:1", paymentHTTP: "a:1", paymentGRPC: "b:2"}); err != nil || *o != want {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := parse([]string{"x"}); err == nil || err.Error() != `unexpected argument "x"` {
		t.Errorf("error %v", err)
	}
}

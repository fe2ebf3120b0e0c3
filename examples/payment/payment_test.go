package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/examples/paymentpb"
)

// client serves a payment's gRPC service on loopback.
func client(t *testing.T, p *payment) paymentpb.PaymentsClient {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	paymentpb.RegisterPaymentsServer(server, p)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return paymentpb.NewPaymentsClient(conn)
}

// post makes a request and returns the status and the body of its answer.
func post(handler http.Handler, path, body string) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestChargeOverHTTP(t *testing.T) {
	t.Parallel()
	routes := newPayment("v2", "v2-a").routes()
	for _, tt := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"user":"ada","cents":1999}`, http.StatusOK, `{"user":"ada","cents":1999,"version":"v2","instance":"v2-a","caller":""}`},
		{`{"user":`, http.StatusBadRequest, "unexpected EOF"},
	} {
		if status, body := post(routes, "/charge", tt.body); status != tt.status || strings.TrimSpace(body) != tt.want {
			t.Errorf("%s: %d %s", tt.body, status, body)
		}
	}
}

func TestChargeOverGRPC(t *testing.T) {
	t.Parallel()
	reply, err := client(t, newPayment("v2", "v2-a")).Charge(t.Context(), &paymentpb.ChargeRequest{User: "ada", Cents: 1999})
	if err != nil || reply.GetVersion() != "v2" || reply.GetInstance() != "v2-a" || reply.GetUser() != "ada" || reply.GetCents() != 1999 {
		t.Errorf("%v, %v", reply, err)
	}
}

func TestWatchTellsOfTheChargesOfAUser(t *testing.T) {
	t.Parallel()
	p := newPayment("v1", "v1-a")
	c := client(t, p)
	stream, err := c.Watch(t.Context(), &paymentpb.WatchRequest{User: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	charged, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // until the watcher has heard of a charge
		defer close(done)
		for charged.Err() == nil {
			for _, user := range []string{"bob", "ada"} {
				if _, err := c.Charge(t.Context(), &paymentpb.ChargeRequest{User: user}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	got, err := stream.Recv()
	stop()
	<-done
	if err != nil || got.GetUser() != "ada" {
		t.Errorf("%v, %v", got, err)
	}
	p.feed.end()
	for err == nil {
		_, err = stream.Recv() // what was charged until then
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the end of a watch: %v", err)
	}
}

func TestBrokenPaymentAnswersSo(t *testing.T) {
	t.Parallel()
	p := newPayment("v1", "v1-b")
	ctx, c, routes := t.Context(), client(t, p), p.routes()
	server, err := p.trouble.serve(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	tell := func(what string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+server.Addr+what, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusNoContent {
			t.Fatal(resp, err)
		}
	}

	tell("/break")
	if status, body := post(routes, "/charge", "{}"); status != http.StatusServiceUnavailable || body != "payment v1-b is broken\n" {
		t.Errorf("%d %s", status, body)
	}
	if _, err := c.Charge(ctx, &paymentpb.ChargeRequest{}); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "payment v1-b is broken" {
		t.Errorf("%v", err)
	}
	tell("/mend")
	if status, body := post(routes, "/charge", "{}"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
}

func TestAdministrationStaysOnLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"0.0.0.0:0":      `--admin "0.0.0.0:0": want a loopback address, such as 127.0.0.1:0`,
		":0":             `--admin ":0": want a loopback address, such as 127.0.0.1:0`,
		"example.org:80": `--admin "example.org:80": want a loopback address, such as 127.0.0.1:0`,
		"nonsense":       "--admin: address nonsense: missing port in address",
	} {
		if _, err := new(trouble).serve(t.Context(), address); err == nil || err.Error() != want {
			t.Errorf("%s: error %v", address, err)
		}
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"--version", "v2", "--http", ":1"})
	if want := (options{http: ":1", grpc: ":9090", version: "v2", instance: "payment"}); err != nil || *o != want {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := parse([]string{"x"}); err == nil || err.Error() != `unexpected argument "x"` {
		t.Errorf("error %v", err)
	}
}

package mesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/internal/worldtest"
)

const paymentHost = "payment.shop.svc.cluster.local"

// services is the ServiceEntry and the WorkloadEntries of the given payments.
func services(payments ...*worldtest.Payment) string {
	var b strings.Builder
	b.WriteString(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: payment, namespace: shop}
spec:
  hosts: [payment.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP}
  - {number: 82, name: http2, protocol: HTTP2}
  - {number: 9090, name: grpc, protocol: GRPC}
  workloadSelector: {labels: {app: payment}}
`)
	for _, p := range payments {
		_, httpPort, _ := strings.Cut(p.HTTP, ":")
		_, grpcPort, _ := strings.Cut(p.GRPC, ":")
		version, _, _ := strings.Cut(p.Instance, "-")
		fmt.Fprintf(&b, `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: %s, namespace: shop}
spec:
  address: 127.0.0.1
  ports: {http: %s, http2: %s, grpc: %s}
  labels: {app: payment, version: %s}
  serviceAccount: payment
`, p.Instance, httpPort, httpPort, grpcPort, version)
	}
	return b.String()
}

func TestCustomerCallsPayment(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	payment := w.Payment("v1-a", map[string]string{"app": "payment"})
	w.Apply(services(payment))
	customer := w.Join("shop", "customer", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	for port, proto := range map[string]string{"80": "HTTP/1.1", "82": "HTTP/2.0"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+paymentHost+":"+port+"/charge?x=1", strings.NewReader("42"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := customer.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		var reply worldtest.Reply
		if err := json.Unmarshal(body, &reply); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if reply.Instance != "v1-a" || reply.Proto != proto || reply.Peer != "spiffe://cluster.local/ns/shop/sa/customer" {
			t.Errorf("port %s: reply %+v", port, reply)
		}
	}

	conn, err := grpc.NewClient("mesh:///"+paymentHost+":9090", customer.DialOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var header metadata.MD
	if _, err := grpc_testing.NewTestServiceClient(conn).EmptyCall(ctx, &grpc_testing.Empty{}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	var reply worldtest.Reply
	if err := json.Unmarshal([]byte(strings.Join(header.Get(worldtest.ReplyHeader), "")), &reply); err != nil {
		t.Fatalf("%v: header %v", err, header)
	}
	if reply.Instance != "v1-a" || reply.Peer != "spiffe://cluster.local/ns/shop/sa/customer" {
		t.Errorf("gRPC: reply %+v", reply)
	}
}

// fmt prints unexported fields, keys among them, of what does not say itself what it
// is.
func TestV55_PrintingAMeshShowsNoSecret(t *testing.T) {
	t.Parallel()
	w := worldtest.New(t, "")
	m := w.Join("shop", "customer", nil)
	for _, verb := range []string{"%v", "%+v", "%s"} {
		if got := fmt.Sprintf(verb, m); !strings.HasPrefix(got, "mesh of ") || len(got) > 200 {
			t.Errorf("%s prints %.300s", verb, got)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/inboardmesh/inboard/examples/paymentpb"
	"github.com/inboardmesh/inboard/mesh"
)

// customer calls payment through the mesh.
type customer struct {
	chargeURL string
	http      *http.Client
	grpc      paymentpb.PaymentsClient
	// ending is done when the customer is to end.
	ending context.Context
}

// price is what everything costs here.
const price = 1999

// purchase is the answer of GET /buy.
type purchase struct {
	Via string `json:"via"`
	// Version and Instance are those of the payment that answered, Caller is
	// who it says that we are.
	Version  string `json:"version,omitempty"`
	Instance string `json:"instance,omitempty"`
	Caller   string `json:"caller,omitempty"`
	// Error is set if nothing was bought.
	Error *failure `json:"error,omitempty"`
}

// failure is why nothing was bought.
type failure struct {
	// Kind is "response" if payment answered so, and otherwise the kind of the
	// mesh's error: "connect-failure", "overflow", "timeout" and so on.
	Kind     string `json:"kind"`
	Cluster  string `json:"cluster,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	Message  string `json:"message"`
}

// buy serves GET /buy?via=http|grpc&user=NAME.
func (c *customer) buy(w http.ResponseWriter, r *http.Request) {
	user := r.FormValue("user")
	p := purchase{Via: r.FormValue("via")}
	var err error
	switch p.Via {
	case "grpc":
		err = c.buyGRPC(r.Context(), user, &p)
	case "http", "":
		p.Via = "http"
		err = c.buyHTTP(r.Context(), user, &p)
	default:
		http.Error(w, fmt.Sprintf("via %q: want http or grpc", p.Via), http.StatusBadRequest)
		return
	}
	code := http.StatusOK
	if err != nil {
		p.Error = explain(err)
		code = http.StatusBadGateway
	}
	answer(w, code, &p)
}

// answer writes JSON.
func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // a caller that went away needs no answer
}

// buyHTTP is an ordinary HTTP request. The scheme is http: the mesh does TLS.
func (c *customer) buyHTTP(ctx context.Context, user string, p *purchase) error {
	body, err := json.Marshal(map[string]any{"user": user, "cents": price})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.chargeURL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-User", user) // routes can match on it
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // what there is of it
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return json.NewDecoder(resp.Body).Decode(p)
}

// buyGRPC is an ordinary gRPC call.
func (c *customer) buyGRPC(ctx context.Context, user string, p *purchase) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-user", user)
	reply, err := c.grpc.Charge(ctx, &paymentpb.ChargeRequest{User: user, Cents: price})
	if err != nil {
		return err
	}
	p.Version, p.Instance, p.Caller = reply.GetVersion(), reply.GetInstance(), reply.GetCaller()
	return nil
}

// explain tells a failure of the mesh, or on its way, from an answer of the
// payment.
func explain(err error) *failure {
	if e, ok := errors.AsType[*mesh.Error](err); ok {
		return &failure{Kind: e.Kind.String(), Cluster: e.Cluster, Attempts: e.Attempts, Message: e.Error()}
	}
	return &failure{Kind: "response", Message: err.Error()}
}

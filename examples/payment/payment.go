package main

import (
	"context"
	"encoding/json"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/examples/paymentpb"
	"github.com/inboardmesh/inboard/mesh"
)

// payment is the service, over gRPC and over HTTP.
type payment struct {
	paymentpb.UnimplementedPaymentsServer

	version, instance string
	feed              *feed
	trouble           *trouble
}

func newPayment(version, instance string) *payment {
	return &payment{version: version, instance: instance, feed: newFeed(), trouble: &trouble{instance: instance}}
}

// charge is what the payment is there for.
func (p *payment) charge(ctx context.Context, user string, cents int64) (*paymentpb.ChargeReply, error) {
	if err := p.trouble.err(); err != nil {
		return nil, err
	}
	reply := &paymentpb.ChargeReply{User: user, Cents: cents, Version: p.version, Instance: p.instance}
	if id, ok := mesh.PeerID(ctx); ok {
		reply.Caller = id.String() // who this is has been verified
	}
	p.feed.publish(reply)
	return reply, nil
}

// Charge implements [paymentpb.PaymentsServer].
func (p *payment) Charge(ctx context.Context, r *paymentpb.ChargeRequest) (*paymentpb.ChargeReply, error) {
	reply, err := p.charge(ctx, r.GetUser(), r.GetCents())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return reply, nil
}

// Watch implements [paymentpb.PaymentsServer].
func (p *payment) Watch(r *paymentpb.WatchRequest, stream grpc.ServerStreamingServer[paymentpb.ChargeReply]) error {
	charges, leave := p.feed.subscribe()
	defer leave()
	for {
		select {
		case charge := <-charges:
			if r.GetUser() != "" && r.GetUser() != charge.GetUser() {
				continue
			}
			if err := stream.Send(charge); err != nil {
				return err
			}
		case <-p.feed.ended:
			return status.Error(codes.Unavailable, "the payment ends: watch another")
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// Over HTTP, POST /charge takes a charge and returns a receipt.
type (
	charge struct {
		User  string `json:"user"`
		Cents int64  `json:"cents"`
	}
	receipt struct {
		charge

		Version  string `json:"version"`
		Instance string `json:"instance"`
		Caller   string `json:"caller"`
	}
)

func (p *payment) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /charge", func(w http.ResponseWriter, r *http.Request) {
		var c charge
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		reply, err := p.charge(r.Context(), c.User, c.Cents)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(receipt{c, reply.GetVersion(), reply.GetInstance(), reply.GetCaller()}) // the caller went away
	})
	return mux
}

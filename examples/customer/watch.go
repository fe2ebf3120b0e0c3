package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/inboardmesh/inboard/examples/paymentpb"
)

// watch serves GET /watch?user=NAME: a line of JSON for every charge of the
// user that one of the payments takes, until either side leaves.
func (c *customer) watch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(c.ending, cancel)() //nolint:contextcheck // either can end it
	stream, err := c.grpc.Watch(ctx, &paymentpb.WatchRequest{User: r.FormValue("user")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	controller := http.NewResponseController(w)
	if err := controller.Flush(); err != nil { // the caller shall see that we listen
		return
	}
	encoder := json.NewEncoder(w)
	for {
		charge, err := stream.Recv()
		if err != nil {
			return // the status has been sent: the end of the body says it
		}
		p := purchase{Via: "grpc", Version: charge.GetVersion(), Instance: charge.GetInstance(), Caller: charge.GetCaller()}
		if err := encoder.Encode(&p); err != nil {
			return
		}
		if err := controller.Flush(); err != nil {
			return
		}
	}
}

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// trouble breaks the payment on demand, for demonstrations: a broken payment
// answers every charge with 503, or UNAVAILABLE. Safe for concurrent use.
type trouble struct {
	instance string
	broken   atomic.Bool
}

// err is the trouble that a charge runs into, nil without one.
func (t *trouble) err() error {
	if !t.broken.Load() {
		return nil
	}
	return fmt.Errorf("payment %s is broken", t.instance)
}

// serve offers POST /break and POST /mend on address, which must be on
// loopback: nobody is asked who they are. An empty address serves nothing. The
// result's Addr is where it listens; the caller closes it.
func (t *trouble) serve(ctx context.Context, address string) (*http.Server, error) {
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second}
	if address == "" {
		return server, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	if !net.ParseIP(host).IsLoopback() {
		return nil, fmt.Errorf("--admin %q: want a loopback address, such as 127.0.0.1:0", address)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	mux := http.NewServeMux()
	for path, broken := range map[string]bool{"POST /break": true, "POST /mend": false} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			t.broken.Store(broken)
			w.WriteHeader(http.StatusNoContent)
		})
	}
	server.Addr, server.Handler = ln.Addr().String(), mux
	go func() { _ = server.Serve(ln) }() // until the caller closes it
	return server, nil
}

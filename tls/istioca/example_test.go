package istioca_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/istioca"
)

func ExampleParseConfig() {
	config, err := istioca.ParseConfig([]byte(`{
		"server_uri": "istiod.istio-system.svc:15012",
		"token_file": "/var/run/secrets/tokens/istio-token",
		"root_file": "/var/run/secrets/istio/root-cert.pem",
		"certificate_lifetime": "24h"
	}`))
	fmt.Println(config.ServerURI, config.Lifetime, err)

	_, err = istioca.ParseConfig([]byte(`{"server_uri": "https://istiod:15012", "token_file": "/token"}`))
	fmt.Println(err)
	// Output:
	// istiod.istio-system.svc:15012 24h0m0s <nil>
	// istio_ca: server_uri: "https://istiod:15012": want a gRPC target: write "istiod:15012"
}

// New waits for the first certificate. What goes wrong meanwhile is told to
// OnChange, and is in the error.
func ExampleNew() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	source, err := istioca.New(ctx, istioca.Config{
		ServerURI: "127.0.0.1:15012",
		TokenFile: "no-such-token",
		OnChange:  func(event observe.CertificateEvent) { fmt.Println(event.Err) },
	})
	if err != nil {
		fmt.Println(errors.Is(err, context.DeadlineExceeded))
		return
	}
	defer source.Close() // use source as meshtls.ClientParams.Identity and Roots
	// Output:
	// istio_ca: certificate from "127.0.0.1:15012": token_file: open no-such-token: no such file or directory
	// true
}

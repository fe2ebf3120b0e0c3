package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/inboardmesh/inboard/mesh"
)

var kilobyte = strings.Repeat("x", 1024)

func application(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, kilobyte) // who does not read it fails by itself
}

// serveHTTP serves in the background for the rest of the process.
func serveHTTP(ctx context.Context, k kind, ln net.Listener) error {
	var handler http.Handler = http.HandlerFunc(application)
	switch {
	case k == httpTLS, k == http2TLS, k == httpOTel:
		protocol := "http/1.1"
		if k == http2TLS {
			protocol = "h2"
		}
		config, err := mutualTLS(protocol)
		if err != nil {
			return err
		}
		ln = tls.NewListener(ln, config)
		if k == httpOTel {
			globalTelemetry()
			handler = otelhttp.NewHandler(handler, "charge")
		}
	case needsControlPlane(k):
		m, err := mesh.New(ctx, meshOptions(k)...)
		if err != nil {
			return err
		}
		if ln, err = m.Serve(ctx, ln); err != nil {
			return err
		}
		handler = m.Handler(handler)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }() // until the process ends
	return nil
}

func dialHTTP(ctx context.Context, k kind, target string) (func() error, error) {
	client := &http.Client{}
	url := target + "/charge"
	switch {
	case k == httpPlain:
		client.Transport, url = transport(nil), "http://"+target+"/charge"
	case needsControlPlane(k):
		m, err := mesh.New(ctx, meshOptions(k)...)
		if err != nil {
			return nil, err
		}
		client = m.HTTPClient()
	default:
		protocol := "http/1.1"
		if k == http2TLS {
			protocol = "h2"
		}
		config, err := mutualTLS(protocol)
		if err != nil {
			return nil, err
		}
		client.Transport, url = transport(config), "https://"+target+"/charge"
		if k == http2TLS {
			client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		}
	}
	if k == httpOTel || k == httpStack {
		globalTelemetry()
		client.Transport = otelhttp.NewTransport(client.Transport)
	}
	if k == httpStack {
		client.Transport = failsafehttp.NewRoundTripper(client.Transport,
			failsafehttp.NewRetryPolicyBuilder().WithMaxRetries(2).Build(),
			circuitbreaker.NewBuilder[*http.Response]().WithFailureRateThreshold(0.5, 100, 10*time.Second).Build())
	}
	return func() error { return get(ctx, client, url) }, nil
}

// transport keeps as many connections as there are callers.
func transport(config *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: config, MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: false}
}

// get makes a call with the time that the mesh's route gives it.
func get(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK || n != int64(len(kilobyte)):
		return fmt.Errorf("got %s with %d bytes", resp.Status, n)
	}
	return nil
}

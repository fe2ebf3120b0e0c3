package retry

import (
	"fmt"
	"testing"

	"github.com/inboardmesh/inboard/outcome"
)

func status(code int, header ...string) outcome.Outcome {
	return outcome.Outcome{Kind: outcome.Response, Status: code, Sent: true, Header: headers(header...)}
}

func grpcStatus(code uint32, header ...string) outcome.Outcome {
	return outcome.Outcome{Kind: outcome.Response, GRPC: true, Code: code, Sent: true, Header: headers(header...)}
}

func broken(kind outcome.Kind) outcome.Outcome { return outcome.Outcome{Kind: kind, Sent: true} }

func unsent(kind outcome.Kind) outcome.Outcome { return outcome.Outcome{Kind: kind} }

func headers(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestBR2_Conditions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		on   string
		yes  []outcome.Outcome
		no   []outcome.Outcome
		list []int
	}{
		{
			on: "5xx",
			yes: []outcome.Outcome{
				status(500), status(503), status(599), unsent(outcome.ConnectFailure), broken(outcome.RefusedStream),
				broken(outcome.Reset), unsent(outcome.ResetBeforeRequest), broken(outcome.PerTryTimeout),
			},
			no: []outcome.Outcome{status(200), status(409), status(429), status(499), status(600), grpcStatus(14)},
		},
		{
			on: "gateway-error",
			yes: []outcome.Outcome{
				status(502), status(503), status(504), broken(outcome.Reset), unsent(outcome.ConnectFailure), broken(outcome.PerTryTimeout),
			},
			no: []outcome.Outcome{status(500), status(501), status(505), status(404), grpcStatus(14)},
		},
		{
			on: "reset",
			yes: []outcome.Outcome{
				broken(outcome.Reset), unsent(outcome.ResetBeforeRequest), unsent(outcome.ConnectFailure),
				broken(outcome.RefusedStream), broken(outcome.PerTryTimeout),
			},
			no: []outcome.Outcome{status(503), status(500), grpcStatus(14)},
		},
		{
			on:  "reset-before-request",
			yes: []outcome.Outcome{unsent(outcome.ResetBeforeRequest), unsent(outcome.ConnectFailure), unsent(outcome.Reset), unsent(outcome.PerTryTimeout)},
			no:  []outcome.Outcome{broken(outcome.Reset), broken(outcome.RefusedStream), broken(outcome.PerTryTimeout), status(503)},
		},
		{
			on:  "connect-failure",
			yes: []outcome.Outcome{unsent(outcome.ConnectFailure)},
			no:  []outcome.Outcome{broken(outcome.Reset), unsent(outcome.ResetBeforeRequest), broken(outcome.RefusedStream), status(503), broken(outcome.PerTryTimeout)},
		},
		{
			on:  "refused-stream",
			yes: []outcome.Outcome{broken(outcome.RefusedStream)},
			no:  []outcome.Outcome{broken(outcome.Reset), unsent(outcome.ConnectFailure), status(503)},
		},
		{
			on:  "retriable-4xx",
			yes: []outcome.Outcome{status(409)},
			no:  []outcome.Outcome{status(400), status(404), status(408), status(425), status(429), status(503)},
		},
		{
			on: "retriable-status-codes", list: []int{418, 503},
			yes: []outcome.Outcome{status(418), status(503)},
			no:  []outcome.Outcome{status(502), status(409), broken(outcome.Reset)},
		},
		{on: "retriable-status-codes", no: []outcome.Outcome{status(503)}},
		{on: "5xx", list: []int{418}, no: []outcome.Outcome{status(418)}},
		{on: "retriable-headers", no: []outcome.Outcome{status(503), broken(outcome.Reset)}},
		{on: "http3-post-connect-failure", no: []outcome.Outcome{status(503), broken(outcome.Reset), unsent(outcome.ConnectFailure)}},
		{
			on:  "envoy-ratelimited",
			yes: []outcome.Outcome{status(429, "x-envoy-ratelimited", "true"), status(503, "x-envoy-ratelimited", "true")},
			no:  []outcome.Outcome{status(429), status(503), broken(outcome.Reset)},
		},
		{on: "", no: []outcome.Outcome{status(503), broken(outcome.Reset), unsent(outcome.ConnectFailure), grpcStatus(14)}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("on %s %v", tt.on, tt.list), func(t *testing.T) {
			t.Parallel()
			p := policyOn(t, tt.on)
			p.RetriableStatusCodes = tt.list
			checkRetryable(t, p, tt.yes, tt.no)
		})
	}
}

func policyOn(t *testing.T, on string) *Policy {
	t.Helper()
	c, err := ParseConditions(on)
	if err != nil {
		t.Fatal(err)
	}
	return &Policy{MaxRetries: 1, On: c}
}

func checkRetryable(t *testing.T, p *Policy, yes, no []outcome.Outcome) {
	t.Helper()
	for _, o := range yes {
		if !p.Retryable(&o) {
			t.Errorf("on %v: %s is not retried", p.On, describe(&o))
		}
	}
	for _, o := range no {
		if p.Retryable(&o) {
			t.Errorf("on %v: %s is retried", p.On, describe(&o))
		}
	}
}

func describe(o *outcome.Outcome) string {
	return fmt.Sprintf("%v, status %d, gRPC %v code %d, sent %v", o.Kind, o.Status, o.GRPC, o.Code, o.Sent)
}

func TestBR3_GRPCConditions(t *testing.T) {
	t.Parallel()
	codes := map[string]uint32{"cancelled": 1, "deadline-exceeded": 4, "resource-exhausted": 8, "internal": 13, "unavailable": 14}
	for on, code := range codes {
		t.Run(on, func(t *testing.T) {
			t.Parallel()
			var yes, no []outcome.Outcome
			for c := range uint32(18) {
				// An answer, also when it came in trailers before any message.
				answer := grpcStatus(c)
				// What an HTTP client sees of a gRPC answer without a body.
				trailersOnly := status(200, "grpc-status", fmt.Sprint(c))
				// What a gRPC client makes of a broken connection.
				local := outcome.Outcome{Kind: outcome.Reset, GRPC: true, Code: c, Sent: true}
				if c == code {
					yes = append(yes, answer, trailersOnly, local)
				} else {
					no = append(no, answer, trailersOnly, local)
				}
			}
			no = append(no, status(200, "grpc-status", "x"), status(200, "grpc-status", "-1"), status(200), status(503))
			checkRetryable(t, policyOn(t, on), yes, no)
		})
	}
	t.Run("transport conditions hold for gRPC", func(t *testing.T) {
		t.Parallel()
		refused := outcome.Outcome{Kind: outcome.RefusedStream, GRPC: true, Code: 14, Sent: true}
		connect := outcome.Outcome{Kind: outcome.ConnectFailure, GRPC: true, Code: 14}
		checkRetryable(t, policyOn(t, "refused-stream"), []outcome.Outcome{refused}, []outcome.Outcome{connect, grpcStatus(14)})
		checkRetryable(t, policyOn(t, "connect-failure"), []outcome.Outcome{connect}, []outcome.Outcome{refused, grpcStatus(14)})
		checkRetryable(t, policyOn(t, "reset"), []outcome.Outcome{connect, refused}, []outcome.Outcome{grpcStatus(14)})
	})
	t.Run("an HTTP error page instead of a gRPC answer", func(t *testing.T) {
		t.Parallel()
		page := outcome.Outcome{Kind: outcome.Response, Status: 503, GRPC: true, Code: 14, Sent: true}
		checkRetryable(t, policyOn(t, "gateway-error"), []outcome.Outcome{page}, []outcome.Outcome{grpcStatus(14)})
	})
}

func TestBR4_RateLimitedInhibitsRetries(t *testing.T) {
	t.Parallel()
	all := ^OnEnvoyRateLimited
	p := &Policy{On: all, RetriableStatusCodes: []int{503}}
	checkRetryable(t, p,
		[]outcome.Outcome{status(503), grpcStatus(14)},
		[]outcome.Outcome{
			status(503, "x-envoy-ratelimited", "true"),
			status(429, "x-envoy-ratelimited", "true"),
			grpcStatus(14, "x-envoy-ratelimited", "true"),
		})
	p = &Policy{On: all | OnEnvoyRateLimited}
	checkRetryable(t, p, []outcome.Outcome{status(503, "x-envoy-ratelimited", "true"), grpcStatus(8, "x-envoy-ratelimited", "true")}, nil)
}

func TestBR21_WhatTheMeshOrTheCallerEndedIsNeverRetried(t *testing.T) {
	t.Parallel()
	p := &Policy{On: ^Conditions(0), RetriableStatusCodes: []int{0, 503}}
	for _, kind := range []outcome.Kind{
		outcome.Timeout, outcome.Canceled, outcome.Overflow, outcome.NoEndpoint, outcome.Local, outcome.BodyFailure, outcome.Kind(200),
	} {
		for _, o := range []outcome.Outcome{
			{Kind: kind},
			{Kind: kind, Status: 503, Sent: true, Header: headers("grpc-status", "14", "x-envoy-ratelimited", "true")},
			{Kind: kind, GRPC: true, Code: 14},
		} {
			if p.Retryable(&o) {
				t.Errorf("%s is retried", describe(&o))
			}
		}
	}
	var none *Policy
	if o := status(503); none.Retryable(&o) {
		t.Error("a nil policy retries")
	}
}

package pipeline

import (
	"context"
	"regexp"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/route"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/retry"
)

func TestBU7_ADirectResponseNeedsNoUpstream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) {
			r := top(t)
			r.Forward, r.Direct = nil, &discovery.DirectResponse{Status: 418, Body: []byte("tea")}
			t.Clusters = nil
		}))
		d := &adapter{}
		o, c := b.run(t.Context(), d)
		if o.Kind != outcome.Local || o.Status != 418 || d.attempts+d.routed != 0 {
			t.Errorf("got %+v after %d attempts", o, d.attempts)
		}
		if a := c.Answer; a == nil || a.Status != 418 || string(a.Body) != "tea" {
			t.Errorf("the answer is %+v", c.Answer)
		}
		b.expect("call", "call ended: local")
	})
}

func format(text string) *discovery.Format {
	f, err := discovery.ParseFormat(text, discovery.OfRequest)
	if err != nil {
		panic(err)
	}
	return f
}

func TestBU7_Redirects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		redirect discovery.Redirect
		match    discovery.PathMatch
		req      route.Request // without Method
		want     string
	}{
		{
			name: "nothing but the status", redirect: discovery.Redirect{Status: 302},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/a%2Fb", Query: "x=1"},
			want: "http://payment.shop/a%2Fb?x=1",
		},
		{
			name: "another host", redirect: discovery.Redirect{Host: "ledger.shop"},
			req:  route.Request{Scheme: "http", Host: "payment.shop:8080", Path: "/charge"},
			want: "http://ledger.shop/charge",
		},
		{
			name: "another port", redirect: discovery.Redirect{Port: 8443},
			req:  route.Request{Scheme: "http", Host: "payment.shop:8080", Path: "/charge"},
			want: "http://payment.shop:8443/charge",
		},
		{
			name: "another host and port", redirect: discovery.Redirect{Host: "ledger.shop", Port: 81},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge"},
			want: "http://ledger.shop:81/charge",
		},
		{
			name: "another port of an IPv6 address", redirect: discovery.Redirect{Port: 8443},
			req:  route.Request{Scheme: "http", Host: "[2001:db8::1]:8080", Path: "/charge"},
			want: "http://[2001:db8::1]:8443/charge",
		},
		{
			name: "another scheme, without a port", redirect: discovery.Redirect{Scheme: "https"},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge"},
			want: "https://payment.shop/charge",
		},
		{
			name: "another scheme drops the old one's port", redirect: discovery.Redirect{Scheme: "https"},
			req:  route.Request{Scheme: "http", Host: "payment.shop:80", Path: "/charge"},
			want: "https://payment.shop/charge",
		},
		{
			name: "another scheme keeps any other port", redirect: discovery.Redirect{Scheme: "https"},
			req:  route.Request{Scheme: "http", Host: "payment.shop:8080", Path: "/charge"},
			want: "https://payment.shop:8080/charge",
		},
		{
			name: "another path", redirect: discovery.Redirect{Path: "/refund"},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge", Query: "x=1"},
			want: "http://payment.shop/refund?x=1",
		},
		{
			name: "another path with escapes", redirect: discovery.Redirect{Path: "/a%2Fb"},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge"},
			want: "http://payment.shop/a%2Fb",
		},
		{
			name: "another path with a query of its own", redirect: discovery.Redirect{Path: "/refund?y=2", StripQuery: true},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge", Query: "x=1"},
			want: "http://payment.shop/refund?y=2",
		},
		{
			name: "a prefix", redirect: discovery.Redirect{PrefixRewrite: "/v2"}, match: discovery.PathMatch{Value: "/charge"},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge/a%2Fb", Query: "x=1"},
			want: "http://payment.shop/v2/a%2Fb?x=1",
		},
		{
			name: "all of an expression", redirect: discovery.Redirect{PrefixRewrite: "/v2"},
			match: discovery.PathMatch{Kind: discovery.PathRegex, Value: "/c.*", Regex: &discovery.Regex{Program: regexp.MustCompile(`\A/c.*\z`)}},
			req:   route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge/7", Query: "x=1"},
			want:  "http://payment.shop/v2?x=1",
		},
		{
			name: "what an expression matches", redirect: discovery.Redirect{PathSubstitution: &discovery.Substitution{
				Program: regexp.MustCompile("^/([^/]+)/"), Replacement: "/v2/${1}/",
			}},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge/a%2Fb", Query: "x=1"},
			want: "http://payment.shop/v2/charge/a%2Fb?x=1",
		},
		{
			name: "a path that is computed", redirect: discovery.Redirect{PathFormat: format("/from/%REQ(:method)%"), StripQuery: true},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge", Query: "x=1"},
			want: "http://payment.shop/from/GET",
		},
		{
			name: "without the query", redirect: discovery.Redirect{StripQuery: true},
			req:  route.Request{Scheme: "http", Host: "payment.shop", Path: "/charge", Query: "x=1"},
			want: "http://payment.shop/charge",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				if tt.redirect.Status == 0 {
					tt.redirect.Status = 301
				}
				b.configure(newTarget(func(t *discovery.Target) {
					r := top(t)
					r.Forward, r.Redirect, r.Match.Path = nil, &tt.redirect, tt.match
				}))
				c := b.prepare(&adapter{})
				tt.req.Method = "GET"
				o := c.Run(t.Context(), &tt.req)
				if o.Kind != outcome.Local || o.Status != tt.redirect.Status || c.Answer.Location != tt.want {
					t.Errorf("got %d to %q, want %q", o.Status, c.Answer.Location, tt.want)
				}
			})
		})
	}
}

func TestBU9_NoRoute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(func(t *discovery.Target) { top(t).Match.Path.Value = "/refund" }))
		d := &adapter{}
		o, _ := b.run(t.Context(), d)
		e := expectError(t, o, outcome.NoRoute, `mesh: target "payment.shop:80": no route matches GET "payment.shop/charge"`)
		if !e.SafeToRetry() || d.attempts != 0 {
			t.Errorf("safe to retry: %t after %d attempts", e.SafeToRetry(), d.attempts)
		}
		b.configure(newTarget(func(t *discovery.Target) { t.Routes.VirtualHosts[0].Domains = []string{"refund.shop"} }))
		o, _ = b.run(t.Context(), d)
		expectError(t, o, outcome.NoRoute, `mesh: target "payment.shop:80": no virtual host is for "payment.shop"`)
		b.configure(newTarget(func(t *discovery.Target) { top(t).Forward, top(t).Local = nil, true }))
		o, _ = b.run(t.Context(), d)
		expectError(t, o, outcome.NoRoute, `mesh: target "payment.shop:80": route "top": the route is for requests that arrive, not for requests that leave`)
	})
}

func TestDropsAnswerAndAreNotRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 3, On: retry.On5xx}), func(t *discovery.Target) {
			t.Clusters["v1"].Endpoints.Drops = []discovery.Drop{{Category: "never"}, {Category: "lb", PerMillion: everyCall}}
		}))
		d := &adapter{}
		o, c := b.run(t.Context(), d)
		if o.Kind != outcome.Local || o.Status != 503 || d.attempts != 0 || c.Answer.Reason != "drop_overload lb" {
			t.Errorf("got %+v, %+v after %d attempts", o, c.Answer, d.attempts)
		}
		b.idle("v1")
	})
}

func TestHooksSeeWhatTheCallerSees(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.configure(newTarget(retrying(retry.Policy{MaxRetries: 1, On: retry.On5xx})))
		c := b.prepare(&adapter{attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome {
			time.Sleep(time.Second)
			if n == 1 {
				return failure(outcome.Reset)
			}
			return response(404)
		}})
		begin := time.Now()
		o := c.Run(t.Context(), getCharge())
		answered := time.Now()
		time.Sleep(time.Second) // the body is read
		c.Finish(o)
		c.Finish(failure(outcome.Reset)) // too late to count
		b.expect("call", "attempt 1", "attempt 1 ended: reset", "attempt 2", "attempt 2 ended: response", "call ended: response")

		call := b.calls[0]
		if call.Direction != observe.Outbound || call.Target != targetName || call.Route != "top" || call.Cluster != "v1" ||
			call.Attempts != 2 || call.Outcome.Status != 404 || !call.Start.Equal(begin) || !call.End.Equal(answered.Add(time.Second)) {
			t.Errorf("the call is observed as %+v", call)
		}
		for i, attempt := range b.tries {
			if attempt.Number != i+1 || attempt.Cluster != "v1" || attempt.Endpoint == "" || attempt.Locality != "r/z" || attempt.Headers == nil {
				t.Errorf("attempt %d is observed as %+v", i+1, attempt)
			}
		}
		if first, second := b.tries[0], b.tries[1]; !first.Start.Equal(begin) || first.End.Sub(first.Start) != time.Second || !second.End.Equal(call.End) {
			t.Errorf("attempts from %v to %v and from %v to %v", first.Start, first.End, second.Start, second.End)
		}
		b.idle("v1")
	})
}

// BC5, S27: whatever becomes of a call, its permits return, and hooks are told
// of each end exactly once.
func TestBC5_PermitsReturnWhateverBecomesOfACall(t *testing.T) {
	t.Parallel()
	const repeat = 1000
	goexit := func(context.Context, *Attempt, int) outcome.Outcome {
		runtime.Goexit()
		return outcome.Outcome{}
	}
	tests := map[string]struct {
		attempt func(context.Context, *Attempt, int) outcome.Outcome
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		ended   []string
	}{
		"success": {ended: []string{"attempt 1 ended: response", "call ended: response"}},
		"error": {
			attempt: always(failure(outcome.Reset)),
			ended:   []string{"attempt 1 ended: reset", "call ended: reset"},
		},
		"cancel": {
			attempt: hang,
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Millisecond, cancel)
				return ctx, cancel
			},
			ended: []string{"attempt 1 ended: canceled", "call ended: canceled"},
		},
		"timeout": {
			attempt: hang,
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, time.Millisecond)
			},
			ended: []string{"attempt 1 ended: timeout", "call ended: timeout"},
		},
		"panic": {
			attempt: func(context.Context, *Attempt, int) outcome.Outcome { panic("foreign code") },
			ended:   []string{"attempt 1 ended: canceled", "call ended: canceled"},
		},
		"goexit": {
			attempt: goexit,
			ended:   []string{"attempt 1 ended: canceled", "call ended: canceled"},
		},
		"retry": {
			attempt: func(_ context.Context, _ *Attempt, n int) outcome.Outcome {
				if n == 1 {
					return response(503)
				}
				return response(200)
			},
			ended: []string{"attempt 1 ended: response", "attempt 2 ended: response", "call ended: response"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.configure(newTarget(routeTimeout(time.Minute), retrying(retry.Policy{MaxRetries: 1, On: retry.OnGatewayError &^ retry.OnReset, PerTryTimeout: time.Second})))
				for i := range repeat {
					done := make(chan struct{})
					go func() {
						defer close(done)
						defer func() { _ = recover() }()
						ctx, cancel := context.WithCancel(t.Context())
						if tt.ctx != nil {
							ctx, cancel = tt.ctx(t.Context())
						}
						defer cancel()
						d := &adapter{attempt: tt.attempt}
						if name == "error" {
							d.unreplayable = true
						}
						b.run(ctx, d)
					}()
					<-done
					if i == 0 {
						b.expectEnds(tt.ended...)
					}
				}
				b.idle("v1")
				b.locked(func() {
					if len(b.calls) != repeat || len(b.tries) != repeat*(len(tt.ended)-1) {
						t.Errorf("%d calls and %d attempts have ended, want %d and %d", len(b.calls), len(b.tries), repeat, repeat*(len(tt.ended)-1))
					}
				})
			})
		})
	}
}

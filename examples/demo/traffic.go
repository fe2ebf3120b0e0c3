package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxInFlight bounds the calls at one time. At the demo's rate that is more
	// than a second's.
	maxInFlight = 256
	// callTimeout is longer than the route's timeout, which comes first.
	callTimeout = 15 * time.Second
)

// ada is the user who gets a payment of her own.
const ada = "ada"

// users take turns. They are an odd number, so that each of them calls by HTTP
// and by gRPC in turn.
var users = [...]string{"bob", "cleo", "dan", "eve", "fay", "gus", "hal", "ivy", "jon", ada, ada}

// traffic calls the customer at a steady rate: a slow answer does not delay the
// next call, unless maxInFlight are open. Safe for concurrent use.
type traffic struct {
	api    string
	caller string
	client *http.Client
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	samples  []sample          // guarded by mu; in the order of their ends
	expected func(sample) bool // guarded by mu; nil expects every call to succeed
}

// startTraffic makes perSecond calls a second to the customer at api, until
// ctx ends or end is called. caller is who payments must see.
func startTraffic(ctx context.Context, api, caller string, perSecond int) *traffic {
	transport := &http.Transport{MaxIdleConnsPerHost: maxInFlight}
	t := &traffic{api: api, caller: caller, client: &http.Client{Transport: transport, Timeout: callTimeout}}
	pace, stop := context.WithCancel(ctx)
	t.stop = stop
	t.wg.Go(func() { // until ctx ends or end is called
		defer transport.CloseIdleConnections()
		var calls sync.WaitGroup
		defer calls.Wait()
		slots := make(chan struct{}, maxInFlight)
		begin := time.Now()
		for i := 0; ; i++ {
			due := begin.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
			timer := time.NewTimer(time.Until(due))
			select {
			case <-timer.C:
			case <-pace.Done():
				timer.Stop()
				return
			}
			select {
			case slots <- struct{}{}:
			case <-pace.Done():
				return
			}
			calls.Go(func() { // ends with its answer, or callTimeout
				defer func() { <-slots }()
				t.call(ctx, i, due)
			})
		}
	})
	return t
}

// end stops calling and waits for the answers that are still due.
func (t *traffic) end() {
	t.stop()
	t.wg.Wait()
}

// call makes the ith call.
func (t *traffic) call(ctx context.Context, i int, due time.Time) {
	one := sample{start: due, user: users[i%len(users)]}
	via := [...]string{"http", "grpc"}[i%2]
	err := t.get(ctx, fmt.Sprintf("http://%s/buy?via=%s&user=%s", t.api, via, one.user), &one.reply)
	one.took = time.Since(due)
	r := &one.reply
	switch {
	case ctx.Err() != nil:
		return // the demo is being broken off
	case err != nil:
		r.Error = &failure{Kind: "customer", Message: err.Error()}
	case r.Error == nil && (r.Via != via || r.Caller != t.caller):
		r.Error = &failure{Kind: "wrong answer", Message: fmt.Sprintf("via %q from %q, want via %q from %q", r.Via, r.Caller, via, t.caller)}
	}
	t.add(one)
}

func (t *traffic) get(ctx context.Context, url string, r *reply) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, r); err != nil {
		return fmt.Errorf("%s: %.200q: %w", resp.Status, body, err)
	}
	return nil
}

func (t *traffic) add(one sample) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one.expected = one.reply.Error != nil && t.expected != nil && t.expected(one)
	t.samples = append(t.samples, one)
}

// expect announces which failures are no failures of the mesh from now on; nil
// for none.
func (t *traffic) expect(expected func(sample) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected = expected
}

// count is the number of calls that have ended.
func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.samples)
}

// since returns the calls that ended after the first n.
func (t *traffic) since(n int) []sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.samples[n:])
}

package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/calltest"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// dying2Conn is a connection of a server of HTTP/2 that may do anything to it. If it is cruel
// it reads some requests without a word; of all others the client hears that it lives.
type dying2Conn struct {
	*calltest.DyingConn

	// silent has the streams that were processed, and of which the client has heard
	// nothing, by their numbers.
	silent *sync.Map
}

// stream2 is a request that arrives.
type stream2 struct {
	id     uint32
	number string
	over   bool // it was refused, or answered
	unsaid bool // nothing was said when it was read
}

func serveDying2(d *calltest.Dying, silent *sync.Map, conn net.Conn) {
	c := &dying2Conn{d.Conn(conn), silent}
	open := map[uint32]*stream2{}
	c.Serve(func(frame *http2.MetaHeadersFrame, number string) {
		s := &stream2{id: frame.StreamID, number: number}
		open[s.id] = s
		s.unsaid = c.Cruel && c.Fate(2, "read without a word") != "" ||
			!c.Say(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) })
		const early = "answered before its body"
		fate := c.Fate(24, append(calltest.Beginnings(), early)...)
		s.over = c.Begin(s.id, fate)
		if fate == early {
			c.answer(s)
			c.Reset(s.id, http2.ErrCodeNo)
		}
	}, func(id uint32, piece []byte, end bool) {
		s := open[id]
		if len(piece) > 0 && !s.over && c.Fate(24, "refused in its body") != "" {
			c.refuse(s)
		}
		if end {
			c.whole(s)
		}
	})
}

func (c *dying2Conn) refuse(s *stream2) {
	s.over = true
	c.Reset(s.id, http2.ErrCodeRefusedStream)
}

// whole is the end of a request, which is answered soon unless it is refused.
func (c *dying2Conn) whole(s *stream2) {
	if s.over {
		return
	}
	s.over = true
	c.Answers.Go(func() {
		c.Pause(20 * time.Millisecond)
		if c.Fate(24, "refused behind its body") != "" {
			c.refuse(s)
			return
		}
		if c.Cruel {
			how := c.Fate(24, "reset when it was processed", "connection closed when it was processed", "reset in its answer")
			if how != "" && c.process(s) {
				c.end(s, how)
				return
			}
		}
		c.answer(s)
		if c.IsLast(s.id) { // those before it may be under way
			c.Pause(50 * time.Millisecond)
			c.StopReading()
		}
	})
}

// end ends a stream that was processed.
func (c *dying2Conn) end(s *stream2, how string) {
	if how == "connection closed when it was processed" {
		c.Close()
		return
	}
	c.told(s, c.Say(func(f *http2.Framer) error {
		if how == "reset in its answer" {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte{0x88}, EndHeaders: true})
		}
		return f.WriteRSTStream(s.id, http2.ErrCodeInternal)
	}))
}

// process reports whether the request was not excluded, and is processed therefore. Until it
// is told something, the client may never be.
func (c *dying2Conn) process(s *stream2) bool {
	if s.unsaid {
		c.silent.Store(s, s.number)
	}
	processed := c.Process(s.id, s.number)
	c.told(s, !processed)
	return processed
}

// told takes note that the client hears of a request.
func (c *dying2Conn) told(s *stream2, told bool) {
	if told {
		c.silent.Delete(s)
	}
}

// answer answers with the number of the request.
func (c *dying2Conn) answer(s *stream2) {
	s.over = true
	if !c.process(s) {
		return
	}
	c.told(s, c.Say(func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte("\x08\x03103"), EndHeaders: true}),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte{0x88}, EndHeaders: true}), // :status 200
			f.WriteData(s.id, true, []byte(s.number)))
	}))
}

// TestBN10_BR12_NothingIsLostOrDoubledWhileStreamsAreRefused: of calls that servers say
// they have not processed none fails, whatever its method, and none is processed twice. Of
// calls of which nobody can know those are sent again, once, that may be acted on twice, if
// their connection ended without a sign of life since they were sent; and no others.
func TestBN10_BR12_NothingIsLostOrDoubledWhileStreamsAreRefused(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		for _, cruel := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d, cruel %t", seed, cruel), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { storm2(t, seed, cruel) })
			})
		}
	}
}

func storm2(t *testing.T, seed uint64, cruel bool) {
	d := calltest.NewDying(seed, cruel)
	var network memnet.Network
	var serving sync.WaitGroup
	var silent sync.Map
	var listeners []net.Listener
	addresses := []string{"10.0.0.1:80", "10.0.0.2:80"}
	var endpoints []balancer.Endpoint
	for _, a := range addresses {
		ln, err := network.Listen(a)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, ln)
		serving.Go(func() { d.Serve(ln, func(conn net.Conn) { serveDying2(d, &silent, conn) }) }) // ends with the listener
		endpoints = append(endpoints, balancer.Endpoint{Address: a, Weight: 1, Health: balancer.Healthy})
	}
	certified := retry.Policy{On: retry.OnRefusedStream | retry.OnResetBeforeRequest | retry.OnConnectFailure, MaxRetries: 20}
	target := newTarget(over(discovery.HTTP2), retrying(certified), func(t *discovery.Target) {
		v1 := t.Clusters["v1"]
		v1.Endpoints = &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}}}
		v1.Cluster.Limits[0].MaxRetries = 100
		t.Clusters["v1"] = v1
	})
	upstreams := upstream.NewManager(upstream.Options{Dial: network.DialContext, Hooks: &observe.Hooks{}})
	outbound := pipeline.NewOutbound(&fixed{target: target}, upstreams, &observe.Hooks{})
	transport := NewTransport(outbound, nil)
	const callers, calls = 8, 40
	var all sync.WaitGroup
	var mu sync.Mutex
	failures := 0
	for caller := range callers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(2+caller)))
			for i := range calls {
				time.Sleep(time.Duration(random.IntN(6)) * 5 * time.Millisecond)
				number := fmt.Sprint(caller, "-", i)
				method := []string{http.MethodGet, http.MethodPut, http.MethodPost}[random.IntN(3)]
				var body io.Reader
				if method != http.MethodGet {
					body = strings.NewReader(strings.Repeat("x", random.IntN(40_000)))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				req := newRequest(ctx, t, method, paymentURL, body)
				req.Header.Set("X-Number", number)
				resp, err := transport.RoundTrip(req)
				if err == nil {
					var got []byte
					got, err = io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err == nil && string(got) != number {
						t.Errorf("%s %s: %q", method, number, got)
					}
				}
				cancel()
				if err != nil {
					if e, ok := errors.AsType[*meshfail.Error](err); !cruel || ok && e.Kind != outcome.Reset {
						t.Errorf("%s %s: %v", method, number, err)
					}
					mu.Lock()
					failures++
					mu.Unlock()
				}
				most := 1
				silent.Range(func(_, unknown any) bool {
					if unknown == number && method != http.MethodPost {
						most = 2
					}
					return most == 1
				})
				if n := d.Processed(number); n > most || n == 0 && err == nil {
					t.Errorf("%s %s was processed %d times", method, number, n)
				}
			}
		})
	}
	all.Wait()
	outbound.Close()
	upstreams.Close()
	for _, ln := range listeners {
		_ = ln.Close()
	}
	serving.Wait()
	want := map[bool]int{false: 9, true: 13}[cruel]
	if text, ways := d.Deaths(); ways != want || failures > callers*calls/3 {
		t.Errorf("there were %s, want %d kinds, and %d calls failed", text, want, failures)
	}
}

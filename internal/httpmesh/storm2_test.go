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
	"golang.org/x/net/http2/hpack"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/internal/pipeline"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
	"github.com/inboardmesh/inboard/outcome/meshfail"
	"github.com/inboardmesh/inboard/retry"
)

// dying2 is servers of HTTP/2 that do to their streams and connections whatever they may:
// streams are refused at every point, fewer or none are allowed for a while, connections
// go with a GOAWAY that excludes some of their streams. If it is cruel, streams and
// connections end that were not certified to be unprocessed, too.
type dying2 struct {
	cruel   bool
	network memnet.Network
	serving sync.WaitGroup

	mu        sync.Mutex
	random    *rand.Rand     // guarded by mu
	processed map[string]int // guarded by mu; by the number of the request
	deaths    map[string]int // guarded by mu; by how
}

// fate draws one of n, of which the test counts those that it names.
func (d *dying2) fate(n int, names map[int]string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := names[d.random.IntN(n)]
	if name != "" {
		d.deaths[name]++
	}
	return name
}

func (d *dying2) pause(most time.Duration) {
	d.mu.Lock()
	n := time.Duration(d.random.Int64N(int64(most)))
	d.mu.Unlock()
	time.Sleep(n)
}

func (d *dying2) serve(address string) (stop func()) {
	ln, err := d.network.Listen(address)
	if err != nil {
		panic(err)
	}
	d.serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			d.serving.Go(func() { (&dying2Conn{dying2: d, conn: conn}).serve() })
		}
	})
	return func() { _ = ln.Close() }
}

// dying2Conn is one of their connections.
type dying2Conn struct {
	*dying2

	conn    net.Conn
	streams sync.WaitGroup

	writing sync.Mutex
	framer  *http2.Framer // its writes are guarded by writing
	last    uint32        // guarded by writing; the last stream that is served, 0 for all
	highest uint32        // guarded by writing; of those that were processed
}

func (c *dying2Conn) say(f func(f *http2.Framer) error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = f(c.framer) // the peer may have gone
}

func (c *dying2Conn) allow(streams uint32) {
	c.say(func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
	})
}

// goAway excludes the streams after the last one, but none that was processed, and ends the
// connection with the others.
func (c *dying2Conn) goAway(last uint32) {
	c.say(func(f *http2.Framer) error {
		if c.last == 0 {
			c.last = max(last, c.highest)
		}
		return f.WriteGoAway(c.last, http2.ErrCodeNo, nil)
	})
}

// process reports whether the stream was not excluded, and is processed therefore.
func (c *dying2Conn) process(s *stream2) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.last > 0 && s.id > c.last {
		return false
	}
	c.highest = max(c.highest, s.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processed[s.number]++
	return true
}

// stream2 is a request that arrives.
type stream2 struct {
	id     uint32
	number string
	over   bool // it was refused, or answered
}

func (c *dying2Conn) serve() {
	defer func() { _ = c.conn.Close() }()
	defer c.streams.Wait()
	if _, err := io.ReadFull(c.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.framer = http2.NewFramer(c.conn, c.conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.allow(4)
	c.say(func(f *http2.Framer) error { return f.WriteSettingsAck() })
	open := map[uint32]*stream2{}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			s := &stream2{id: frame.StreamID}
			for _, field := range frame.RegularFields() {
				if field.Name == "x-number" {
					s.number = field.Value
				}
			}
			open[s.id] = s
			c.headers(s)
			if frame.StreamEnded() {
				c.whole(s)
			}
		case *http2.DataFrame:
			n := uint32(len(frame.Data()))
			if n > 0 {
				c.say(func(f *http2.Framer) error { return f.WriteWindowUpdate(0, n) })
			}
			s := open[frame.StreamID]
			c.data(s)
			if frame.StreamEnded() {
				c.whole(s)
			}
		}
	}
}

// headers is the beginning of a request, for which the connection may be about to change.
func (c *dying2Conn) headers(s *stream2) {
	switch c.fate(24, map[int]string{0: "refused at its headers", 1: "GOAWAY without the stream", 2: "GOAWAY with the stream", 3: "no more streams for a while", 4: "fewer streams", 5: "more streams", 6: "answered before its body"}) {
	case "refused at its headers":
		c.refuse(s)
	case "GOAWAY without the stream":
		c.goAway(max(s.id, 7) - 6)
	case "GOAWAY with the stream":
		c.goAway(s.id)
	case "no more streams for a while":
		c.allow(0)
		c.streams.Go(func() {
			c.pause(50 * time.Millisecond)
			c.allow(3)
		})
	case "fewer streams":
		c.allow(1)
	case "more streams":
		c.allow(6)
	case "answered before its body":
		c.answer(s)
		c.say(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, http2.ErrCodeNo) })
	}
}

func (c *dying2Conn) data(s *stream2) {
	if !s.over && c.fate(24, map[int]string{0: "refused in its body"}) != "" {
		c.refuse(s)
	}
}

func (c *dying2Conn) refuse(s *stream2) {
	s.over = true
	c.say(func(f *http2.Framer) error { return f.WriteRSTStream(s.id, http2.ErrCodeRefusedStream) })
}

// whole is the end of a request, which is answered soon unless it is refused.
func (c *dying2Conn) whole(s *stream2) {
	if s.over {
		return
	}
	s.over = true
	c.streams.Go(func() {
		c.pause(20 * time.Millisecond)
		if c.fate(24, map[int]string{0: "refused behind its body"}) != "" {
			c.refuse(s)
			return
		}
		if c.cruel {
			how := c.fate(24, map[int]string{0: "reset when it was processed", 1: "connection closed when it was processed", 2: "reset in its answer"})
			if how != "" && c.process(s) {
				c.end(s, how)
				return
			}
		}
		c.answer(s)
		c.writing.Lock()
		last := c.last == s.id
		c.writing.Unlock()
		if last { // those before it may be under way
			c.pause(50 * time.Millisecond)
			_ = c.conn.SetReadDeadline(time.Now())
		}
	})
}

// end ends a stream that was processed.
func (c *dying2Conn) end(s *stream2, how string) {
	if how == "connection closed when it was processed" {
		_ = c.conn.Close()
		return
	}
	c.say(func(f *http2.Framer) error {
		if how == "reset in its answer" {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte{0x88}, EndHeaders: true})
		}
		return f.WriteRSTStream(s.id, http2.ErrCodeInternal)
	})
}

// answer answers with the number of the request.
func (c *dying2Conn) answer(s *stream2) {
	s.over = true
	if !c.process(s) {
		return
	}
	c.say(func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte("\x08\x03103"), EndHeaders: true}),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: []byte{0x88}, EndHeaders: true}), // :status 200
			f.WriteData(s.id, true, []byte(s.number)))
	})
}

// TestBN10_BR12_NothingIsLostOrDoubledWhileStreamsAreRefused: of calls that servers say
// they have not processed none fails, whatever its method, and none is processed twice. Of
// calls of which nobody can know none is sent again.
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
	d := &dying2{cruel: cruel, random: rand.New(rand.NewPCG(seed, 1)), processed: map[string]int{}, deaths: map[string]int{}}
	addresses := []string{"10.0.0.1:80", "10.0.0.2:80"}
	var stops []func()
	var endpoints []balancer.Endpoint
	for _, a := range addresses {
		stops = append(stops, d.serve(a))
		endpoints = append(endpoints, balancer.Endpoint{Address: a, Weight: 1, Health: balancer.Healthy})
	}
	certified := retry.Policy{On: retry.OnRefusedStream | retry.OnResetBeforeRequest | retry.OnConnectFailure, MaxRetries: 20}
	target := newTarget(over(discovery.HTTP2), retrying(certified), func(t *discovery.Target) {
		v1 := t.Clusters["v1"]
		v1.Endpoints = &discovery.Assignment{Localities: []balancer.LocalityEndpoints{{Weight: 1, Endpoints: endpoints}}}
		v1.Cluster.Limits[0].MaxRetries = 100
		t.Clusters["v1"] = v1
	})
	upstreams := upstream.NewManager(upstream.Options{Dial: d.network.DialContext, Hooks: &observe.Hooks{}})
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
				d.mu.Lock()
				if n := d.processed[number]; n > 1 || n == 0 && err == nil {
					t.Errorf("%s %s was processed %d times", method, number, n)
				}
				d.mu.Unlock()
			}
		})
	}
	all.Wait()
	outbound.Close()
	upstreams.Close()
	for _, stop := range stops {
		stop()
	}
	d.serving.Wait()
	if want := map[bool]int{false: 9, true: 12}[cruel]; len(d.deaths) != want || failures > callers*calls/3 {
		t.Errorf("there were %v, want %d kinds, and %d calls failed", d.deaths, want, failures)
	}
}

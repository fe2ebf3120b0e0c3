package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/observe"
)

// features are the client features that this package implements: it unwraps
// resources in the state of the world, and it honours their time to live.
var features = [...]string{"xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"}

// Responses that bring nothing new (rejected ones and repetitions) are answered
// at this rate, so that a server that sends in a loop cannot keep the process
// busy. The figures are the defaults of Envoy's RateLimitSettings.
const (
	uselessBurst     = 100
	uselessPerSecond = 10
)

// Client is an ADS client with a cache of what is watched. Create it with
// [NewClient] and end it with [Client.Close]. It is safe for concurrent use.
type Client struct {
	server  ServerConfig
	node    *corev3.Node
	hooks   observe.Hooks
	logger  *slog.Logger
	types   map[string]*typeState // the map itself is immutable
	serial  *serializer
	useless *rate.Limiter
	// wake tells the connection's goroutine that the watches changed. It holds
	// one token; there is never more than one receiver.
	wake   chan struct{}
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool         // guarded by mu
	order   []*typeState // guarded by mu; in the order of the first watch
	watches int          // guarded by mu; how many are not cancelled
	stream  *stream      // guarded by mu; nil without one
	// connErr is why there has been no answer since the last connect; nil
	// while all is well.
	connErr   error // guarded by mu
	connected bool  // guarded by mu; what StreamChanged was told last
}

// NewClient returns a client that connects when the first watch appears. All
// problems of the options are reported together.
func NewClient(options Options) (*Client, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("xDS client: %w", err)
	}
	node := proto.CloneOf(options.Node)
	for _, feature := range features {
		if !slices.Contains(node.GetClientFeatures(), feature) {
			node.ClientFeatures = append(node.ClientFeatures, feature)
		}
	}
	logger := options.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{
		server:  options.Servers[0],
		node:    node,
		hooks:   options.Hooks,
		logger:  logger.With("xds_server", options.Servers[0].Name),
		types:   make(map[string]*typeState),
		serial:  newSerializer(),
		useless: rate.NewLimiter(uselessPerSecond, uselessBurst),
		wake:    make(chan struct{}, 1),
		cancel:  cancel,
	}
	for _, t := range options.Types {
		c.types[t.URL] = newTypeState(t)
	}
	c.wg.Go(c.serial.run)                  // ends with Close
	c.wg.Go(func() { c.connections(ctx) }) // ends with Close
	return c, nil
}

// watch is one registration of a [Watcher].
type watch struct {
	watcher   Watcher
	cancelled atomic.Bool
}

// Watch subscribes to a resource of the type with the URL typeURL. A cached
// value, or a known error, is told at once, on the client's goroutine. A type
// that was not configured and a name that cannot be sent are told as a
// ResourceError. After Close, Watch does nothing.
//
// After cancel has returned, no callback begins; one that has begun on the
// client's goroutine may still be on its way. cancel may be called at any time,
// by any goroutine, any number of times.
func (c *Client) Watch(typeURL, name string, w Watcher) (cancel func()) {
	registered := &watch{watcher: w}
	ts := c.types[typeURL]
	if err := checkName(ts, typeURL, name); err != nil {
		c.serial.add(registered.resourceError(err))
		return func() { registered.cancelled.Store(true) }
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return func() {}
	}
	c.watches++
	if !slices.Contains(c.order, ts) {
		c.order = append(c.order, ts)
	}
	e := ts.entries[name]
	if e == nil {
		e = &entry{ts: ts, name: name, updated: time.Now()}
		ts.entries[name] = e
	}
	e.watchers = append(e.watchers, registered)
	if len(e.watchers) == 1 {
		ts.pending[name] = struct{}{}
	}
	c.greetLocked(e, registered)
	c.mu.Unlock()
	c.poke()
	return sync.OnceFunc(func() { c.unwatch(e, registered) })
}

// Do calls f on the goroutine that calls the watchers, in the order of events. It
// returns at once, and may be called with locks held. After Close, f is not called.
func (c *Client) Do(f func()) { c.serial.add(f) }

// checkName reports why a resource cannot be asked for.
func checkName(ts *typeState, typeURL, name string) error {
	if ts == nil {
		return &Error{Type: typeURL, Name: name, Err: errors.New("the resource type is not configured")}
	}
	switch {
	case name == "":
		return &Error{Type: ts.Name, Name: name, Err: errors.New("the resource name is empty")}
	case !utf8.ValidString(name):
		return &Error{Type: ts.Name, Name: name, Err: errors.New("the resource name is not valid UTF-8")}
	case name == Wildcard && !ts.FullStateInSotW:
		return &Error{Type: ts.Name, Name: name, Err: errors.New("the resource type has no wildcard")}
	}
	return nil
}

func (c *Client) unwatch(e *entry, w *watch) {
	w.cancelled.Store(true)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.watches--
	e.watchers = slices.DeleteFunc(e.watchers, func(other *watch) bool { return other == w })
	if len(e.watchers) == 0 {
		if c.stream == nil {
			c.releaseLocked(e)
		} else {
			// The entry stays until the server is told, so that a watch that
			// comes before finds the value: the server would not send it again.
			e.ts.pending[e.name] = struct{}{}
		}
	}
	c.mu.Unlock()
	c.poke()
}

// poke makes the connection's goroutine look at the watches.
func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Close ends every watch and the connection and waits for all goroutines. It
// must not be called by a [Watcher]. Later calls wait as well.
func (c *Client) Close() error {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	if first {
		for _, ts := range c.order {
			for _, e := range ts.entries {
				e.timer.stopLocked(c)
				e.expiry.stopLocked(c)
			}
		}
	}
	connected := c.connected
	c.mu.Unlock()
	c.cancel()
	c.serial.close()
	c.wg.Wait()
	if first && connected && c.hooks.StreamChanged != nil {
		c.hooks.StreamChanged(observe.StreamEvent{Server: c.server.Name})
	}
	return nil
}

// alarm runs a function under the client's lock after a while. A nil alarm is
// one that was never set.
type alarm struct {
	timer *time.Timer
	over  bool // guarded by Client.mu; ran or was stopped
}

// alarmLocked sets an alarm. The client waits for it in Close.
func (c *Client) alarmLocked(d time.Duration, ringLocked func()) *alarm {
	a := new(alarm)
	c.wg.Add(1)
	a.timer = time.AfterFunc(d, func() {
		defer c.wg.Done()
		c.mu.Lock()
		defer c.mu.Unlock()
		if !a.over {
			a.over = true
			ringLocked()
		}
	})
	return a
}

// setLocked reports whether the alarm will still ring.
func (a *alarm) setLocked() bool { return a != nil && !a.over }

func (a *alarm) stopLocked(c *Client) {
	if a == nil || a.over {
		return
	}
	a.over = true
	if a.timer.Stop() {
		c.wg.Done()
	}
}

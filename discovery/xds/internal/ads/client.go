package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/observe"
)

// features are the client features that this package implements: it unwraps
// resources in the state of the world, and it honours their time to live.
var features = [...]string{"xds.config.resource-in-sotw", "xds.config.supports-resource-ttl"}

// Responses that bring nothing new (repetitions of what is in force, or of what was
// rejected last) are answered at this rate, so that a server that sends again when it
// is answered cannot keep the process busy. The figures are the defaults of Envoy's
// RateLimitSettings. They are read at once: what a server sends again together with
// what is new must not be in its way. What is bad in ever new ways is no loop of this
// kind, and what mends it stands behind it in the stream: that has a rate which no
// server reaches that means well.
const (
	uselessBurst      = 100
	uselessPerSecond  = 10
	rejectedBurst     = 200
	rejectedPerSecond = 200
)

// Client is an ADS client with a cache of what is watched. Create it with
// [NewClient] and end it with [Client.Close]. It is safe for concurrent use.
type Client struct {
	node   *corev3.Node
	hooks  observe.Hooks
	moved  func() // nil if nobody has to know
	logger *slog.Logger
	types  map[string]*typeState // the map itself is immutable
	serial *serializer
	// links are all servers, each once; home is whom to ask for names without
	// an authority, authorities for those with one. None of them changes.
	links       []*link
	home        *authority
	authorities map[string]*authority
	cancel      context.CancelFunc
	wg          sync.WaitGroup
	closing     sync.Once

	mu     sync.Mutex
	closed bool // guarded by mu
	// kept are the resources that nobody watches and nobody could be asked for anew,
	// each until the alarm.
	kept     map[*entry]*alarm // guarded by mu
	mostKept int               // guarded by mu; how many there were, see [slim.Fit]
	order    []*typeState      // guarded by mu; in the order of the first watch
}

// NewClient returns a client that connects to a server when the first watch
// appears that needs it. All problems of the options are reported together.
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
		node:        node,
		hooks:       options.Hooks,
		moved:       options.Moved,
		logger:      logger,
		types:       make(map[string]*typeState),
		serial:      newSerializer(),
		authorities: make(map[string]*authority),
		kept:        make(map[*entry]*alarm),
		cancel:      cancel,
	}
	for _, t := range options.Types {
		c.types[t.URL] = newTypeState(t, node.GetId())
	}
	c.home = c.newAuthority(options.Servers)
	for _, name := range slices.Sorted(maps.Keys(options.Authorities)) {
		servers := options.Authorities[name]
		if len(servers) == 0 {
			servers = options.Servers
		}
		c.authorities[name] = c.newAuthority(servers)
	}
	c.wg.Go(c.serial.run) // ends with Close
	for _, l := range c.links {
		c.wg.Go(func() { l.connections(ctx) }) // ends with Close
	}
	return c, nil
}

// newAuthority shares the connection to a server with the authorities that
// have it as well (gRFC A47).
func (c *Client) newAuthority(servers []ServerConfig) *authority {
	a := newAuthority(nil)
	for i := range servers {
		server := &servers[i]
		at := slices.IndexFunc(c.links, func(l *link) bool { return l.server.id() == server.id() })
		if at < 0 {
			at = len(c.links)
			c.links = append(c.links, newLink(c, *server))
		}
		a.links = append(a.links, c.links[at])
	}
	for _, l := range a.links {
		l.authorities = append(l.authorities, a)
	}
	return a
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
	if ts == nil {
		return c.refuse(registered, &Error{Type: typeURL, Name: name, Err: errors.New("the resource type is not configured"), Node: c.node.GetId()})
	}
	parsed, a, err := c.resolve(ts, name)
	if err != nil {
		return c.refuse(registered, &Error{Type: ts.Name, Name: name, Err: err, Node: ts.node})
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return func() {}
	}
	a.watches++
	if !slices.Contains(c.order, ts) {
		c.order = append(c.order, ts)
	}
	e := ts.entries[parsed.canonical]
	if e == nil {
		e = ts.addLocked(&parsed, a)
	}
	c.unkeepLocked(e)
	e.watchers = append(e.watchers, registered)
	if len(e.watchers) == 1 {
		e.markLocked()
	}
	if e.lackingLocked() {
		c.fallBackLocked(a)
	}
	c.greetLocked(e, registered)
	c.mu.Unlock()
	a.poke()
	return sync.OnceFunc(func() { c.unwatch(e, registered) })
}

// Do calls f on the goroutine that calls the watchers, in the order of events. It
// returns at once, and may be called with locks held. After Close, f is not called.
func (c *Client) Do(f func()) { c.serial.add(f) }

// refuse tells why a resource cannot be asked for.
func (c *Client) refuse(w *watch, err error) (cancel func()) {
	c.serial.add(w.resourceError(err))
	return func() { w.cancelled.Store(true) }
}

func (c *Client) unwatch(e *entry, w *watch) {
	w.cancelled.Store(true)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	e.authority.watches--
	e.watchers = slices.DeleteFunc(e.watchers, func(other *watch) bool { return other == w })
	if len(e.watchers) == 0 {
		// The entry stays until the servers are told, so that a watch that
		// comes before finds the value: they would not send it again.
		e.markLocked()
		c.releaseLocked(e)
	}
	c.mu.Unlock()
	e.authority.poke()
}

// Close ends every watch and the connections, and waits for all goroutines and for the
// watcher or hook that is being called, for nothing else: no server is waited for. It
// must not be called by a [Watcher]. Later calls wait as well.
func (c *Client) Close() error {
	c.closing.Do(c.close)
	return nil
}

func (c *Client) close() {
	c.mu.Lock()
	c.closed = true
	for _, ts := range c.order {
		for _, e := range ts.entries {
			e.timer.stopLocked(c)
			e.expiry.stopLocked(c)
		}
	}
	for _, until := range c.kept {
		until.stopLocked(c)
	}
	var connected []string
	for _, l := range c.links {
		if l.connected {
			connected = append(connected, l.server.Name)
		}
	}
	c.mu.Unlock()
	c.cancel()
	c.serial.close()
	for _, l := range c.links {
		if l.server.Lines != nil {
			l.server.Lines.End()
		}
	}
	c.wg.Wait()
	if hook := c.hooks.StreamChanged; hook != nil {
		for _, server := range connected {
			hook(observe.StreamEvent{Server: server})
		}
	}
}

// alarm runs a function under the client's lock after a while. A nil alarm is
// one that was never set.
type alarm struct {
	timer *time.Timer
	over  bool // guarded by Client.mu; ran or was stopped
}

// alarmLocked sets an alarm. The client waits for it in Close, which has stopped all
// that there are: the goroutine of a link that looks at the watches once more after
// that sets none.
func (c *Client) alarmLocked(d time.Duration, ringLocked func()) *alarm {
	a := new(alarm)
	if c.closed {
		a.over = true
		return a
	}
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

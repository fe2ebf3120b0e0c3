package controlplane

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inboardmesh/inboard/controlplane/ca"
	"github.com/inboardmesh/inboard/controlplane/istio"
)

const (
	// maxTypes, maxNames and maxNameBytes bound what one stream can make the
	// server remember. There are four types, and no mesh has so many names. The
	// bytes are those of all names of a type: over delta they add up.
	maxTypes     = 16
	maxNames     = 100_000
	maxNameBytes = 16 << 20
)

// client is one ADS stream. To go-control-plane's stream loop it is both the
// cache to ask and the callbacks to tell, so that there is nothing to look up
// by stream ID. The loop calls its methods one at a time.
type client struct {
	server   *Server
	ctx      context.Context // ends the stream, when its credentials expire at the latest
	cancel   context.CancelFunc
	number   uint64
	caller   *ca.Caller // nil on a plaintext listener
	peer     string
	protocol string
	since    time.Time

	// silent is closed by first if no request has come when that is over.
	silent chan struct{}
	first  *time.Timer
	// told is that the log has the client's arrival, and is to have its end.
	told atomic.Bool

	// pinned is the node of the first request. Later ones cannot change it,
	// because it was compared with the identity of the caller.
	pinned *core.Node

	mu      sync.Mutex
	node    istio.Node            // guarded by mu
	types   map[string]*typeState // guarded by mu
	answers answers               // guarded by mu, but for stalled
}

// typeState is what happened with one type on a stream.
type typeState struct {
	subscribed int
	// servers are the listeners of servers among what is subscribed to, sorted.
	servers    []string
	sent       string // version of the last response
	nonce      string // of the last response
	last       response
	waiting    bool   // for an answer to it
	resources  uint64 // sent so far
	rejections uint64
	acked      string // version that the client took last
	current    bool   // there was nothing to send when it was looked at last
	nack       *NACK  // the last one
}

var (
	_ cache.ConfigWatcher = (*client)(nil)
	_ sotw.Callbacks      = (*client)(nil)
	_ delta.Callbacks     = (*client)(nil)
)

// CreateWatch implements [cache.ConfigWatcher] for state of the world.
func (c *client) CreateWatch(request *cache.Request, from cache.Subscription, responses chan cache.Response) (func(), error) {
	s, err := c.subscription(request.GetTypeUrl(), from)
	if err != nil {
		return nil, err
	}
	return c.server.watches.add(&pending{client: c, typeURL: s.typeURL, answer: func(current *snapshot) (bool, error) {
		response, err := s.stateOfTheWorld(current, request)
		c.looked(s.typeURL, response == nil && err == nil)
		if response == nil || err != nil {
			return false, err
		}
		return offer(responses, response), nil
	}})
}

// CreateDeltaWatch implements [cache.ConfigWatcher] for the delta protocol.
func (c *client) CreateDeltaWatch(request *cache.DeltaRequest, from cache.Subscription, responses chan cache.DeltaResponse) (func(), error) {
	s, err := c.subscription(request.GetTypeUrl(), from)
	if err != nil {
		return nil, err
	}
	return c.server.watches.add(&pending{client: c, typeURL: s.typeURL, answer: func(current *snapshot) (bool, error) {
		response, err := s.delta(current, request)
		c.looked(s.typeURL, response == nil && err == nil)
		if response == nil || err != nil {
			return false, err
		}
		return offer(responses, response), nil
	}})
}

// offer sends without blocking. The channel has room for more responses than
// there are types, and a request has one response, so it is never refused.
func offer[T any](responses chan T, response T) bool {
	select {
	case responses <- response:
		return true
	default:
		return false
	}
}

func (c *client) subscription(typeURL string, from cache.Subscription) (*subscription, error) {
	names := len(from.SubscribedResources())
	if names > maxNames {
		return nil, status.Errorf(codes.ResourceExhausted, "more than %d names of one type", maxNames)
	}
	size := 0
	var servers []string
	for name := range from.SubscribedResources() {
		size += len(name)
		if typeURL == resource.ListenerType && istio.IsServerListener(name) {
			servers = append(servers, name)
		}
	}
	slices.Sort(servers)
	if size > maxNameBytes {
		return nil, status.Errorf(codes.ResourceExhausted, "names of one type with more than %d bytes", maxNameBytes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.types[typeURL] // it is there since accept
	state.subscribed, state.servers = names, servers
	return newSubscription(c.node, typeURL, from), nil
}

// OnStreamOpen implements [sotw.Callbacks].
func (c *client) OnStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamClosed implements [sotw.Callbacks].
func (c *client) OnStreamClosed(int64, *core.Node) {}

// OnDeltaStreamOpen implements [delta.Callbacks].
func (c *client) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed implements [delta.Callbacks].
func (c *client) OnDeltaStreamClosed(int64, *core.Node) {}

// OnStreamRequest implements [sotw.Callbacks].
func (c *client) OnStreamRequest(_ int64, request *discovery.DiscoveryRequest) error {
	err := c.accept(request.GetNode(), feedback{
		typeURL: request.GetTypeUrl(),
		nonce:   request.GetResponseNonce(),
		// A request that only changes the names has the last nonce as well,
		// but the version of the last response that was taken.
		tookVersion: func(sent string) bool { return request.GetVersionInfo() == sent },
		rejected:    request.GetErrorDetail() != nil,
		reason:      request.GetErrorDetail().GetMessage(),
	})
	request.Node = c.pinned
	c.refused(request.GetTypeUrl(), request.GetResourceNames())
	return err
}

// OnStreamDeltaRequest implements [delta.Callbacks].
func (c *client) OnStreamDeltaRequest(_ int64, request *discovery.DeltaDiscoveryRequest) error {
	err := c.accept(request.GetNode(), feedback{
		typeURL: request.GetTypeUrl(),
		nonce:   request.GetResponseNonce(),
		// A delta request has a nonce only to answer a response.
		tookVersion: func(string) bool { return true },
		rejected:    request.GetErrorDetail() != nil,
		reason:      request.GetErrorDetail().GetMessage(),
	})
	request.Node = c.pinned
	c.refused(request.GetTypeUrl(), request.GetResourceNamesSubscribe())
	return err
}

// refused tells of listeners that a client asks for and does not get, because they are
// another workload's: the client is not told whose.
func (c *client) refused(typeURL string, names []string) {
	c.mu.Lock()
	node := c.node
	c.mu.Unlock()
	current := c.server.watches.current.Load()
	for _, name := range names {
		if err := current.refusal(node, typeURL, name); err != nil && c.server.nacks.first(name+"\x00"+err.Error()) {
			c.logger().Warn("listener refused", "name", clip(name), "error", err)
		}
	}
}

// OnStreamResponse implements [sotw.Callbacks].
func (c *client) OnStreamResponse(_ context.Context, _ int64, _ *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse) {
	c.sent(r.GetTypeUrl(), r.GetVersionInfo(), r.GetNonce(), responseOf(r))
}

// OnStreamDeltaResponse implements [delta.Callbacks].
func (c *client) OnStreamDeltaResponse(_ int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
	c.sent(r.GetTypeUrl(), r.GetSystemVersionInfo(), r.GetNonce(), deltaResponse(r))
}

// looked notes whether there is nothing to send of a type.
func (c *client) looked(typeURL string, current bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state := c.types[typeURL]; state != nil {
		state.current = current
	}
}

func (c *client) sent(typeURL, version, nonce string, last response) {
	c.server.pushed.Add(uint64(last.count()))
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.types[typeURL]
	state.sent, state.nonce, state.last = version, nonce, last
	state.resources += uint64(last.count())
	c.answers.sentLocked(state)
}

// feedback is what a request of either protocol says of the last response.
type feedback struct {
	typeURL, nonce string
	tookVersion    func(sent string) bool
	rejected       bool
	reason         string
}

// expired reports whether what the caller proved does not hold any more.
func (c *client) expired() bool {
	return c.caller != nil && !time.Now().Before(c.caller.NotAfter)
}

func errExpired() error { return status.Error(codes.Unauthenticated, "credentials expired") }

// outcome is the status of a stream whose loop has returned err.
func (c *client) outcome(err error) error {
	if !c.expired() {
		return err
	}
	c.logger().Info("stream ended: its credentials expired")
	return errExpired()
}

// accept checks a request and notes what it says of the last response.
func (c *client) accept(node *core.Node, said feedback) error {
	c.first.Stop()
	if c.expired() {
		return errExpired()
	}
	if c.pinned == nil {
		if err := c.identify(node); err != nil {
			return err
		}
	}
	nack, err := c.note(said)
	if err != nil || nack == nil {
		return err
	}
	if c.server.nacks.first(said.typeURL + "\x00" + nack.Error) {
		c.logRejection(said.typeURL, nack)
	}
	return nil
}

// logRejection logs a reason that was not logged before, unless the client has given
// too many of them for the type, on whatever streams: the last one is in the [Status]
// anyway.
func (c *client) logRejection(typeURL string, nack *NACK) {
	if logged, unlogged := c.server.rejected.allow(c.who() + "\x00" + typeURL); logged {
		c.logger().Warn("client rejected configuration",
			"type", shortType(typeURL), "version", nack.Version, "error", nack.Error, "unlogged", unlogged)
	}
}

// who is the client of the stream, the same one when it comes again.
func (c *client) who() string {
	who := hostOf(c.peer)
	if c.caller != nil {
		who = c.caller.Identity.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return who + "\x00" + c.node.ID
}

// identify takes the node of the first request, if it is the caller's.
func (c *client) identify(node *core.Node) error {
	who, err := nodeOf(node)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if c.caller != nil {
		id := c.caller.Identity
		if who.Namespace != id.Namespace || (who.ServiceAccount != "" && who.ServiceAccount != id.ServiceAccount) {
			c.logger().Warn("stream refused: the node is not the caller's",
				"node", clip(who.ID), "namespace", clip(who.Namespace), "service_account", clip(who.ServiceAccount))
			return status.Error(codes.PermissionDenied, "node metadata NAMESPACE and SERVICE_ACCOUNT are not those of the caller")
		}
		who.ServiceAccount = id.ServiceAccount
	}
	c.pinned = node
	c.mu.Lock()
	c.node = who
	c.mu.Unlock()
	if logged, unlogged := c.server.arrived.allow(c.who()); logged {
		c.told.Store(true)
		c.logger().Info("client connected", "protocol", c.protocol, "unlogged", unlogged)
	}
	return nil
}

// note keeps what a request says of the last response. It returns a NACK if
// the request is one.
func (c *client) note(said feedback) (*NACK, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := c.types[said.typeURL]
	if state == nil {
		if len(c.types) == maxTypes {
			return nil, status.Errorf(codes.ResourceExhausted, "more than %d types on a stream", maxTypes)
		}
		state = new(typeState)
		c.types[said.typeURL] = state
	}
	c.answers.heardLocked(state)
	current := state.nonce != "" && said.nonce == state.nonce
	if said.rejected {
		nack := NACK{Error: clip(said.reason), Time: time.Now(), Active: true}
		if current {
			nack.Version = state.sent
			nack.Resources = state.last.rejected(said.reason)
		}
		state.nack = &nack
		state.rejections++
		c.server.rejections.Add(1)
		return &nack, nil
	}
	if current && said.tookVersion(state.sent) {
		state.acked, state.last = state.sent, response{}
		if state.nack != nil && state.nack.Active {
			resolved := *state.nack
			resolved.Active = false
			state.nack = &resolved // the old one may be in a Status
		}
	}
	return nil, nil
}

func (c *client) logger() *slog.Logger {
	c.mu.Lock()
	id := c.node.ID
	c.mu.Unlock()
	logger := c.server.logger.With("peer", c.peer)
	if id != "" {
		logger = logger.With("node", clip(id))
	}
	if c.caller != nil {
		logger = logger.With("identity", c.caller.Identity.String())
	}
	return logger
}

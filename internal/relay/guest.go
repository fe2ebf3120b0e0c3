package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/inboardmesh/inboard/observe"
)

// The types that guests ask for. Routes are part of their listeners.
const (
	listenerURL = "type.googleapis.com/envoy.config.listener.v3.Listener"
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// sendOrder is the order in which news is sent: what others refer to comes first.
var sendOrder = []string{clusterURL, endpointURL, listenerURL}

var typeNames = map[string]string{listenerURL: "Listener", clusterURL: "Cluster", endpointURL: "ClusterLoadAssignment"}

// guest is the stream of one xDS client of grpc-go.
type guest struct {
	relay  *Relay
	number uint64
	since  time.Time
	// wake tells the sender that there may be something to send. It holds one
	// token; there is one receiver.
	wake chan struct{}
	// changed is set when a follow has news.
	changed atomic.Bool

	mu      sync.Mutex
	types   map[string]*typeState // guarded by mu
	follows map[string]*follow    // guarded by mu; by the Listener's name
}

// typeState is one type of one guest.
type typeState struct {
	url  string
	full bool // a response holds everything; what it omits was removed
	// subscribed are the names that the guest asks for.
	subscribed map[string]struct{}
	// sent is what the guest has, or is about to have.
	sent map[string]resource
	// version and nonce are those of the last response. They are the guest's own,
	// and have nothing to do with the control plane's.
	version uint64
	nonce   string
	// waiting tells that the last response was not answered yet: the next one
	// waits, and holds the state of then.
	waiting bool
	dirty   bool
	// accepted is the last version that was acknowledged, rejected why a later one
	// was not.
	accepted   uint64
	rejected   string
	rejections int
}

func newGuest(r *Relay, number uint64) *guest {
	g := &guest{
		relay: r, number: number, since: time.Now(), wake: make(chan struct{}, 1),
		types: make(map[string]*typeState), follows: make(map[string]*follow),
	}
	for _, url := range sendOrder {
		g.types[url] = &typeState{
			url: url, full: url != endpointURL, subscribed: make(map[string]struct{}), sent: make(map[string]resource),
		}
	}
	return g
}

// news notes that a follow has news. It never blocks.
func (g *guest) news() {
	g.changed.Store(true)
	g.poke()
}

// renew has everything written anew.
func (g *guest) renew() {
	g.mu.Lock()
	for _, f := range g.follows {
		f.renew()
	}
	g.mu.Unlock()
	g.news()
}

func (g *guest) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// stop ends all follows.
func (g *guest) stop() {
	g.mu.Lock()
	follows := g.follows
	g.follows = make(map[string]*follow)
	g.mu.Unlock()
	for _, f := range follows {
		f.end()
	}
}

// receiveAll takes requests until the stream ends.
func (g *guest) receiveAll(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		g.request(request)
		g.poke()
	}
}

// request takes a subscription, and an acknowledgement or a rejection.
func (g *guest) request(r *discoveryv3.DiscoveryRequest) {
	started, ended, rejection := g.take(r)
	for _, f := range ended {
		f.end()
	}
	for _, name := range started {
		f := newFollow(g.relay, name, g.news)
		g.mu.Lock()
		g.follows[name] = f
		g.mu.Unlock()
		g.news() // what it has told already found nobody
	}
	if rejection != nil {
		g.relay.rejected(rejection)
	}
}

// take notes what a request says. It returns the Listeners that are to be
// followed from now on, the follows that are over, and a rejection.
func (g *guest) take(r *discoveryv3.DiscoveryRequest) (started []string, ended []*follow, rejection *rejection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.types[r.GetTypeUrl()]
	if t == nil {
		return nil, nil, nil // nothing refers to such a resource
	}
	if nonce := r.GetResponseNonce(); nonce != "" && nonce != t.nonce {
		return nil, nil, nil // it crossed a response, whose answer says it again
	} else if nonce != "" && t.waiting {
		rejection = t.answered(g, r)
	}
	wanted := make(map[string]struct{}, len(r.GetResourceNames()))
	for _, name := range r.GetResourceNames() {
		wanted[name] = struct{}{}
	}
	for name := range t.subscribed {
		if _, ok := wanted[name]; ok {
			continue
		}
		delete(t.sent, name) // the guest forgets it
		if f := g.follows[name]; f != nil && t.url == listenerURL {
			delete(g.follows, name)
			ended = append(ended, f)
		}
	}
	for name := range wanted {
		if _, ok := t.subscribed[name]; !ok && t.url == listenerURL {
			started = append(started, name)
		}
	}
	t.subscribed, t.dirty = wanted, true
	slices.Sort(started)
	return started, ended, rejection
}

// rejection is a response that a guest did not accept.
type rejection struct {
	event observe.ResourceEvent
	// meant tells that the response had something to reject.
	meant bool
}

// answered notes how a response was taken.
func (t *typeState) answered(g *guest, r *discoveryv3.DiscoveryRequest) *rejection {
	t.waiting = false
	detail := r.GetErrorDetail()
	if detail == nil {
		t.accepted, t.rejected = t.version, ""
		return nil
	}
	t.rejected = detail.GetMessage()
	t.rejections++
	meant := false
	for _, sent := range t.sent {
		meant = meant || sent.refused
	}
	return &rejection{meant: meant, event: observe.ResourceEvent{
		Server: "guest " + strconv.FormatUint(g.number, 10), Type: typeNames[t.url],
		Version: strconv.FormatUint(t.version, 10), Err: errors.New(detail.GetMessage()),
	}}
}

// rejected reports a rejection. One that is meant to be is reported where the
// reason for it was found.
func (r *Relay) rejected(n *rejection) {
	if n.meant {
		r.options.Logger.Debug("native gRPC rejected what it is refused", "guest", n.event.Server, "type", n.event.Type, "error", n.event.Err)
		return
	}
	r.options.Logger.Warn("native gRPC rejected its configuration", "guest", n.event.Server, "type", n.event.Type, "error", n.event.Err)
	if r.options.Hooks != nil && r.options.Hooks.GuestRejected != nil {
		r.options.Hooks.GuestRejected(n.event)
	}
}

// sendAll sends what is due until ctx ends or the stream breaks.
func (g *guest) sendAll(ctx context.Context, stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) {
	for {
		if response := g.next(); response != nil {
			if err := stream.Send(response); err != nil {
				return // receiveAll knows why
			}
			continue
		}
		select {
		case <-g.wake:
		case <-ctx.Done():
			return
		}
	}
}

// next returns the next response, nil if the guest is up to date or has to answer
// first.
func (g *guest) next() *discoveryv3.DiscoveryResponse {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.changed.Swap(false) {
		for _, t := range g.types {
			t.dirty = true
		}
	}
	var known map[string]map[string]resource
	for _, url := range sendOrder {
		t := g.types[url]
		if !t.dirty || t.waiting {
			continue
		}
		if known == nil {
			known = g.knownLocked()
		}
		if bodies := t.due(known[url]); bodies != nil {
			t.version++
			t.nonce = strconv.FormatUint(t.version, 10)
			t.waiting = true
			response := &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: t.nonce, Nonce: t.nonce}
			for _, name := range slices.Sorted(maps.Keys(bodies)) {
				response.Resources = append(response.Resources, bodies[name].body)
			}
			return response
		}
	}
	return nil
}

// knownLocked is everything that the follows have, by type and name. Where two of
// them have the same, it is the same but for a moment.
func (g *guest) knownLocked() map[string]map[string]resource {
	known := map[string]map[string]resource{listenerURL: {}, clusterURL: {}, endpointURL: {}}
	for _, name := range slices.Sorted(maps.Keys(g.follows)) {
		s := g.follows[name].snapshot()
		if s == nil {
			continue
		}
		if s.listener.body != nil {
			known[listenerURL][name] = s.listener
		}
		maps.Copy(known[clusterURL], s.clusters)
		maps.Copy(known[endpointURL], s.endpoints)
	}
	return known
}

// due returns the resources of the next response, nil if there is nothing to
// tell. What the guest asks for and nobody knows any more stays as it is: it will
// be given up when the guest has heard of what takes its place.
func (t *typeState) due(known map[string]resource) map[string]resource {
	t.dirty = false
	next := make(map[string]resource, len(t.subscribed))
	news := make(map[string]resource)
	withdrawn := false
	for name := range t.subscribed {
		old, had := t.sent[name]
		now, ok := known[name]
		switch {
		case !ok && had:
			next[name] = old
		case !ok:
		case now.refused && had && !old.refused && t.full:
			// A guest keeps what it has when it rejects something. So what it has is
			// taken away first, and the reason comes after that.
			withdrawn, t.dirty = true, true
		default:
			next[name] = now
			if !had || old.refused != now.refused || !bytes.Equal(old.body.GetValue(), now.body.GetValue()) {
				news[name] = now
			}
		}
	}
	if len(news) == 0 && !withdrawn {
		return nil
	}
	t.sent = next
	if t.full {
		return next
	}
	return news
}

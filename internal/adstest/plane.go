package adstest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Plane is a control plane on top of a [Server]: it answers every stream from the
// resources that the test sets, in either variant, as a good server does; and can
// be told to behave badly. Its methods may be called from any goroutine.
type Plane struct {
	// Server is where it listens. To stop, restart or freeze it is allowed, to
	// accept its streams is not.
	Server *Server

	done chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex
	resources map[string]map[string]stored // guarded by mu; by type URL and name
	version   int                          // guarded by mu
	streams   map[*planeStream]struct{}    // guarded by mu
	mutate    func(typeURL string, body []byte) []byte
	silent    bool       // guarded by mu
	requests  []*Request // guarded by mu; since the last Requests
	nacks     []*Request // guarded by mu
	answers   Answers    // guarded by mu
}

// Answers sums up how a client answers responses.
type Answers struct {
	// Sent counts responses, Answered those of them that were acknowledged or
	// rejected, Rejected the latter.
	Sent, Answered, Rejected int
	// Slowest is the longest that an answer took.
	Slowest time.Duration
}

type stored struct {
	body    *anypb.Any
	version string
	ttl     time.Duration
}

// Serve starts a control plane without resources. It ends with the test.
func Serve(tb testing.TB, config Config) *Plane {
	tb.Helper()
	p := &Plane{
		Server:    Start(tb, config),
		done:      make(chan struct{}),
		resources: make(map[string]map[string]stored),
		streams:   make(map[*planeStream]struct{}),
	}
	p.wg.Go(p.accept) // ends with the test
	tb.Cleanup(func() {
		close(p.done)
		p.Server.Stop()
		p.wg.Wait()
	})
	return p
}

// Set adds or replaces resources and tells the clients. The name of a message is
// its field "name" or "cluster_name".
func (p *Plane) Set(resources ...proto.Message) { p.SetTTL(0, resources...) }

// SetTTL is [Plane.Set] with a time to live, 0 for none.
func (p *Plane) SetTTL(ttl time.Duration, resources ...proto.Message) {
	p.change(func(version string) {
		for _, m := range resources {
			body := Any(m)
			p.ofTypeLocked(body.GetTypeUrl())[nameOf(m)] = stored{body: body, version: version, ttl: ttl}
		}
	})
}

// Remove removes resources of a type and tells the clients.
func (p *Plane) Remove(typeURL string, names ...string) {
	p.change(func(string) {
		for _, name := range names {
			delete(p.resources[typeURL], name)
		}
	})
}

// Touch makes every resource of a type new and sends it again.
func (p *Plane) Touch(typeURL string) {
	p.change(func(version string) {
		for name, s := range p.resources[typeURL] {
			s.version = version
			p.resources[typeURL][name] = s
		}
	})
}

// Restarted makes versions begin at 1 again, as a control plane that keeps none
// does. Call it while the server is stopped.
func (p *Plane) Restarted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = 1
	for _, resources := range p.resources {
		for name, s := range resources {
			s.version = "1"
			resources[name] = s
		}
	}
}

// Mutate passes the encoded resources of all later responses through f, until it
// is called with nil.
func (p *Plane) Mutate(f func(typeURL string, body []byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mutate = f
}

// Silence makes the control plane accept everything and answer nothing.
func (p *Plane) Silence(silent bool) {
	p.change(func(string) { p.silent = silent })
}

// EndStreams ends every stream.
func (p *Plane) EndStreams(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.streams {
		s.stream.End(err)
	}
}

// Requests returns the requests since the last call.
func (p *Plane) Requests() []*Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

// maxNacks is how many rejections are kept.
const maxNacks = 100

// Rejections returns the last hundred requests that were rejections.
func (p *Plane) Rejections() []*Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.nacks)
}

// Answers returns how the clients have answered so far.
func (p *Plane) Answers() Answers {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answers
}

func (p *Plane) ofTypeLocked(typeURL string) map[string]stored {
	if p.resources[typeURL] == nil {
		p.resources[typeURL] = make(map[string]stored)
	}
	return p.resources[typeURL]
}

func (p *Plane) change(f func(version string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version++
	f(strconv.Itoa(p.version))
	for s := range p.streams {
		s.poke()
	}
}

// accept ends with the test.
func (p *Plane) accept() {
	for {
		stream, ok := p.Server.opened.nextUntil(p.done)
		if !ok {
			return
		}
		s := &planeStream{plane: p, stream: stream, wake: make(chan struct{}, 1), types: make(map[string]*planeType)}
		p.mu.Lock()
		p.streams[s] = struct{}{}
		p.mu.Unlock()
		p.wg.Go(s.run) // ends with the stream
	}
}

// planeStream serves one stream.
type planeStream struct {
	plane  *Plane
	stream *Stream
	wake   chan struct{}

	types map[string]*planeType // only run uses it
	order []string
	nonce int
}

// planeType is what a client has asked for and was sent.
type planeType struct {
	asked   map[string]bool
	sent    map[string]string // versions by name, "" for one that is not there
	nonce   string
	waiting map[string]time.Time // when the nonces went out
}

func (s *planeStream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run ends with the stream.
func (s *planeStream) run() {
	defer func() {
		s.plane.mu.Lock()
		delete(s.plane.streams, s)
		s.plane.mu.Unlock()
	}()
	for {
		for _, r := range s.stream.Pending() {
			s.take(r)
		}
		for _, typeURL := range s.order {
			s.answer(typeURL)
		}
		select {
		case <-s.stream.requests.some():
		case <-s.wake:
		case <-s.stream.done:
			return
		}
	}
}

// take notes what a request says.
func (s *planeStream) take(r *Request) {
	p := s.plane
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, r)
	t := s.types[r.TypeURL]
	if t == nil {
		t = &planeType{asked: make(map[string]bool), sent: maps.Clone(r.InitialVersions), waiting: make(map[string]time.Time)}
		if t.sent == nil {
			t.sent = make(map[string]string)
		}
		s.types[r.TypeURL] = t
		s.order = append(s.order, r.TypeURL)
	}
	if at, ok := t.waiting[r.Nonce]; ok && r.Nonce != "" {
		delete(t.waiting, r.Nonce)
		p.answers.Answered++
		p.answers.Slowest = max(p.answers.Slowest, r.At.Sub(at))
		if r.Error != nil {
			p.answers.Rejected++
		}
	}
	if r.Error != nil {
		p.nacks = append(p.nacks[max(len(p.nacks)-maxNacks+1, 0):], r)
	}
	if !s.stream.Delta {
		if r.Nonce != "" && r.Nonce != t.nonce {
			return // it crossed a response
		}
		asked := make(map[string]bool, len(r.Names))
		for _, name := range r.Names {
			asked[name] = true
		}
		for name := range t.sent {
			if !asked[name] {
				delete(t.sent, name)
			}
		}
		t.asked = asked
		return
	}
	for _, name := range r.Unsubscribe {
		delete(t.asked, name)
		delete(t.sent, name)
	}
	for _, name := range r.Subscribe {
		if t.asked[name] {
			delete(t.sent, name) // it is asked for again
		}
		t.asked[name] = true
	}
}

// answer sends what is new of a type.
func (s *planeStream) answer(typeURL string) {
	p := s.plane
	p.mu.Lock()
	if p.silent {
		p.mu.Unlock()
		return
	}
	t := s.types[typeURL]
	var fresh, gone []string
	resources := p.resources[typeURL]
	for name := range t.asked {
		now, exists := resources[name]
		was, sent := t.sent[name]
		switch {
		case exists && (!sent || was != now.version):
			fresh = append(fresh, name)
		case !exists && (!sent || was != ""):
			gone = append(gone, name)
		}
	}
	slices.Sort(fresh)
	slices.Sort(gone)
	full := !s.stream.Delta && (typeURL == listenerURL || typeURL == clusterURL)
	if len(fresh) == 0 && (len(gone) == 0 || !s.stream.Delta && !full) {
		p.mu.Unlock()
		return
	}
	if full { // it lists everything there is
		fresh = fresh[:0]
		for _, name := range slices.Sorted(maps.Keys(t.asked)) {
			if _, ok := p.resources[typeURL][name]; ok {
				fresh = append(fresh, name)
			}
		}
	}
	for _, name := range fresh {
		t.sent[name] = p.resources[typeURL][name].version
	}
	for _, name := range gone {
		t.sent[name] = ""
	}
	s.nonce++
	t.nonce = fmt.Sprintf("n%d", s.nonce)
	t.waiting[t.nonce] = time.Now()
	response := s.responseLocked(typeURL, t.nonce, fresh, gone)
	p.answers.Sent++
	p.mu.Unlock()
	s.stream.Send(response)
}

const (
	listenerURL = "type.googleapis.com/envoy.config.listener.v3.Listener"
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
)

func (s *planeStream) responseLocked(typeURL, nonce string, fresh, gone []string) proto.Message {
	p := s.plane
	if s.stream.Delta {
		response := Removing(DeltaResponse(typeURL, nonce), gone...)
		response.SystemVersionInfo = strconv.Itoa(p.version)
		for _, name := range fresh {
			response.Resources = append(response.Resources, p.resourceLocked(typeURL, name))
		}
		return response
	}
	response := Response(typeURL, strconv.Itoa(p.version), nonce)
	for _, name := range fresh {
		resource := p.resourceLocked(typeURL, name)
		if resource.GetTtl() == nil {
			response.Resources = append(response.Resources, resource.GetResource())
		} else {
			response.Resources = append(response.Resources, Any(resource))
		}
	}
	return response
}

func (p *Plane) resourceLocked(typeURL, name string) *discoveryv3.Resource {
	stored := p.resources[typeURL][name]
	resource := &discoveryv3.Resource{Name: name, Version: stored.version, Resource: stored.body}
	if p.mutate != nil {
		resource.Resource = &anypb.Any{TypeUrl: typeURL, Value: p.mutate(typeURL, slices.Clone(stored.body.GetValue()))}
	}
	if stored.ttl > 0 {
		resource.Ttl = durationpb.New(stored.ttl)
	}
	return resource
}

// nameOf returns the name of a resource.
func nameOf(m proto.Message) string {
	fields := m.ProtoReflect().Descriptor().Fields()
	field := fields.ByName("cluster_name")
	if field == nil {
		field = fields.ByName("name")
	}
	return m.ProtoReflect().Get(field).String()
}

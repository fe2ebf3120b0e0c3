package ads_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/internal/adstest"
)

const (
	lds = "type.googleapis.com/envoy.config.listener.v3.Listener"
	rds = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// decodeText decodes "name=value". A value that begins with "!" is invalid, the
// value "panic" panics, and bytes without "=" have no name.
func decodeText(b []byte) (string, any, error) {
	name, value, ok := strings.Cut(string(b), "=")
	switch {
	case !ok:
		return "", nil, fmt.Errorf("%q cannot be parsed", b)
	case value == "panic":
		panic("boom")
	case strings.HasPrefix(value, "!"):
		return name, nil, errors.New("invalid: " + value[1:])
	}
	return name, value, nil
}

func textTypes() []ads.Type {
	return []ads.Type{
		{URL: lds, Name: "Listener", FullStateInSotW: true, Decode: decodeText},
		{URL: rds, Name: "RouteConfiguration", Decode: decodeText},
		{URL: cds, Name: "Cluster", FullStateInSotW: true, Decode: decodeText},
		{URL: eds, Name: "ClusterLoadAssignment", Decode: decodeText},
	}
}

// harness is a client, its server and the stream between them.
type harness struct {
	t      *testing.T
	server *adstest.Server
	client *ads.Client
	delta  bool
}

type setup func(*ads.Options)

func newHarness(t *testing.T, delta bool, setups ...setup) *harness {
	t.Helper()
	return newHarnessOn(t, adstest.Start(t, adstest.Config{}), delta, setups...)
}

func newHarnessOn(t *testing.T, server *adstest.Server, delta bool, setups ...setup) *harness {
	t.Helper()
	mode := ads.ModeSotW
	if delta {
		mode = ads.ModeDelta
	}
	options := ads.Options{
		Servers: []ads.ServerConfig{{Name: "xds.test", Dial: server.Dial, Mode: mode}},
		Types:   textTypes(),
		Node:    &corev3.Node{Id: "node-1", UserAgentName: "inboard"},
	}
	for _, s := range setups {
		s(&options)
	}
	client, err := ads.NewClient(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &harness{t: t, server: server, client: client, delta: delta}
}

// sotw runs a test in a bubble with a client of the state of the world.
func sotw(t *testing.T, test func(*harness), setups ...setup) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newHarness(t, false, setups...)) })
}

// delta runs a test in a bubble with a delta client.
func delta(t *testing.T, test func(*harness), setups ...setup) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newHarness(t, true, setups...)) })
}

// both runs a test once with each variant.
func both(t *testing.T, test func(*harness), setups ...setup) {
	t.Helper()
	t.Run("state of the world", func(t *testing.T) {
		t.Parallel()
		sotw(t, test, setups...)
	})
	t.Run("delta", func(t *testing.T) {
		t.Parallel()
		delta(t, test, setups...)
	})
}

// watch registers a watcher that records.
func (h *harness) watch(typeURL, name string) *recorder {
	r := new(recorder)
	r.cancel = h.client.Watch(typeURL, name, r)
	return r
}

// respond sends resources, given as "name=value", "removed:name" (delta only)
// or a *discoveryv3.Resource.
func (h *harness) respond(s *adstest.Stream, typeURL, version, nonce string, resources ...any) {
	h.t.Helper()
	if !h.delta {
		response := adstest.Response(typeURL, version, nonce)
		for _, r := range resources {
			switch r := r.(type) {
			case string:
				if strings.HasPrefix(r, "removed:") {
					continue
				}
				response.Resources = append(response.Resources, &anypb.Any{TypeUrl: typeURL, Value: []byte(r)})
			case proto.Message:
				response.Resources = append(response.Resources, adstest.Any(r))
			}
		}
		s.Send(response)
		return
	}
	response := adstest.DeltaResponse(typeURL, nonce)
	response.SystemVersionInfo = version
	for _, r := range resources {
		switch r := r.(type) {
		case string:
			if name, ok := strings.CutPrefix(r, "removed:"); ok {
				response.RemovedResources = append(response.RemovedResources, name)
				continue
			}
			name, _, named := strings.Cut(r, "=")
			if !named {
				name = ""
			}
			response.Resources = append(response.Resources, &discoveryv3.Resource{
				Name: name, Version: version, Resource: &anypb.Any{TypeUrl: typeURL, Value: []byte(r)},
			})
		case *discoveryv3.Resource:
			response.Resources = append(response.Resources, r)
		}
	}
	s.Send(response)
}

// expectSubscribe takes the next request and checks that it subscribes: all is
// what a client of the state of the world must list, added what a delta client
// must add.
func (h *harness) expectSubscribe(s *adstest.Stream, typeURL, version, nonce string, all, added []string) *adstest.Request {
	h.t.Helper()
	r := s.RecvType(typeURL)
	if r.Error != nil {
		h.t.Errorf("request %v, want no error_detail", r)
	}
	if h.delta {
		if !slices.Equal(r.Subscribe, added) || r.Nonce != "" {
			h.t.Errorf("request %v, want to subscribe %q without a nonce", r, added)
		}
		return r
	}
	if r.Version != version || r.Nonce != nonce || !slices.Equal(r.Names, all) {
		h.t.Errorf("request %v, want version %q, nonce %q, names %q", r, version, nonce, all)
	}
	return r
}

// expectUnsubscribe is expectSubscribe for names that are given up.
func (h *harness) expectUnsubscribe(s *adstest.Stream, typeURL, version, nonce string, all, removed []string) {
	h.t.Helper()
	r := s.RecvType(typeURL)
	if h.delta {
		if !slices.Equal(r.Unsubscribe, removed) || r.Nonce != "" || r.Error != nil {
			h.t.Errorf("request %v, want to unsubscribe %q without a nonce", r, removed)
		}
		return
	}
	if r.Version != version || r.Nonce != nonce || !slices.Equal(r.Names, all) || r.Error != nil {
		h.t.Errorf("request %v, want version %q, nonce %q, names %q", r, version, nonce, all)
	}
}

func (h *harness) expectACK(s *adstest.Stream, typeURL, version, nonce string, names ...string) {
	h.t.Helper()
	r := s.RecvType(typeURL)
	if r.Nonce != nonce || r.Error != nil || r.Subscribe != nil || r.Unsubscribe != nil || r.InitialVersions != nil {
		h.t.Errorf("request %v, want an ACK with nonce %q", r, nonce)
	}
	if !h.delta && (r.Version != version || !slices.Equal(r.Names, names)) {
		h.t.Errorf("request %v, want an ACK with version %q and names %q", r, version, names)
	}
}

// expectNACK checks that error_detail holds each of texts.
func (h *harness) expectNACK(s *adstest.Stream, typeURL, version, nonce string, names []string, texts ...string) {
	h.t.Helper()
	r := s.RecvType(typeURL)
	if r.Nonce != nonce || codes.Code(r.Error.GetCode()) != codes.InvalidArgument {
		h.t.Errorf("request %v, want a NACK with nonce %q", r, nonce)
	}
	if !h.delta && (r.Version != version || !slices.Equal(r.Names, names)) {
		h.t.Errorf("request %v, want a NACK with version %q and names %q", r, version, names)
	}
	for _, text := range texts {
		if !strings.Contains(r.Error.GetMessage(), text) {
			h.t.Errorf("error_detail %q, want it to hold %q", r.Error.GetMessage(), text)
		}
	}
}

// start watches one resource and accepts the stream up to the first
// subscription.
func (h *harness) start(typeURL, name string) (*adstest.Stream, *recorder) {
	h.t.Helper()
	w := h.watch(typeURL, name)
	s := h.server.Accept()
	h.expectSubscribe(s, typeURL, "", "", []string{name}, []string{name})
	return s, w
}

// startWith is start, and a first version that is acknowledged.
func (h *harness) startWith(typeURL, name, value string) (*adstest.Stream, *recorder) {
	h.t.Helper()
	s, w := h.start(typeURL, name)
	h.respond(s, typeURL, "v1", "n1", name+"="+value)
	h.expectACK(s, typeURL, "v1", "n1", name)
	w.expect(h.t, "changed "+value)
	return s, w
}

// state returns the dump of one resource.
func (h *harness) state(typeURL, name string) ads.ResourceState {
	h.t.Helper()
	for _, s := range h.client.Dump() {
		if s.TypeURL == typeURL && s.Name == name {
			return s
		}
	}
	h.t.Errorf("%s %q is not in the dump", typeURL, name)
	return ads.ResourceState{}
}

// recorder is a watcher that writes down what it is told.
type recorder struct {
	cancel func()
	// on is called in each callback if it is set.
	on func()

	mu     sync.Mutex
	events []event // guarded by mu
}

type event struct {
	at    time.Time
	kind  string
	value any
	err   error
}

func (e event) String() string {
	if e.err != nil {
		return e.kind + " " + e.err.Error()
	}
	return fmt.Sprintf("%s %v", e.kind, e.value)
}

func (r *recorder) Changed(resource any)    { r.note(event{kind: "changed", value: resource}) }
func (r *recorder) ResourceError(err error) { r.note(event{kind: "error", err: err}) }
func (r *recorder) AmbientError(err error)  { r.note(event{kind: "ambient", err: err}) }

func (r *recorder) note(e event) {
	e.at = time.Now()
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	if r.on != nil {
		r.on()
	}
}

// take waits until the bubble is at rest and returns what came.
func (r *recorder) take() []event {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

// expect checks what came since the last look: each event must begin with its
// kind and hold the text after it.
func (r *recorder) expect(t *testing.T, want ...string) []event {
	t.Helper()
	events := r.take()
	if len(events) != len(want) {
		t.Errorf("events %q, want %q", events, want)
		return events
	}
	for i, e := range events {
		kind, text, _ := strings.Cut(want[i], " ")
		if e.kind != kind || !strings.Contains(e.String(), text) || (kind == "changed" && e.value != text) {
			t.Errorf("event %q, want %q", e, want[i])
		}
	}
	return events
}

// notFound reports whether the last event says that the resource does not exist.
func notFound(events []event) bool {
	return len(events) > 0 && errors.Is(events[len(events)-1].err, discovery.ErrNotFound)
}

func packed(typeURL, value string) *anypb.Any {
	return &anypb.Any{TypeUrl: typeURL, Value: []byte(value)}
}

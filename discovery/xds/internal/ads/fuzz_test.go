package ads

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
)

const (
	fuzzFull    = "type.googleapis.com/fuzz.Full"
	fuzzPartial = "type.googleapis.com/fuzz.Partial"
)

// fuzzDecode takes "name=value"; a value with "!" is bad, one with "?" panics.
func fuzzDecode(b []byte) (string, any, error) {
	name, value, ok := strings.Cut(string(b), "=")
	switch {
	case !ok:
		return "", nil, errors.New("no name: " + string(b))
	case strings.Contains(value, "?"):
		panic(value)
	case strings.Contains(value, "!"):
		return name, nil, errors.New("bad value: " + value)
	}
	return name, value, nil
}

// fuzzWatcher counts what must never come of a rejected response.
type fuzzWatcher struct {
	cancel func()

	mu       sync.Mutex
	notFound int  // guarded by mu
	valued   bool // guarded by mu; a value was told
	lost     bool // guarded by mu; and then that there is none
}

func (w *fuzzWatcher) Changed(any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.valued = true
}

func (w *fuzzWatcher) ResourceError(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = w.lost || w.valued
	w.note(err)
}

func (w *fuzzWatcher) AmbientError(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(err)
}

func (w *fuzzWatcher) note(err error) {
	if errors.Is(err, discovery.ErrNotFound) {
		w.notFound++
	}
}

// fuzzWire is a variant without a network.
type fuzzWire struct{ wire }

func (fuzzWire) send(m proto.Message) error {
	_, err := proto.Marshal(m)
	return err
}

// fuzzRun plays a script against a client without a network.
type fuzzRun struct {
	t        *testing.T
	client   *Client
	typeURL  string
	delta    bool
	servers  []*fuzzServer
	watchers map[string]*fuzzWatcher
}

// fuzzServer is one server of a run, with the stream to it; nil without one.
type fuzzServer struct {
	*link

	stream *stream
}

// inUse reports whether a server may be asked.
func (r *fuzzRun) inUse(s *fuzzServer) bool {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	return r.client.usedLocked(s.link)
}

// drainAll drains every server: a change of the watches concerns all that are asked.
func (r *fuzzRun) drainAll() {
	for _, s := range r.servers {
		if s.stream != nil {
			r.drain(s)
		}
	}
}

// heard returns how often the watchers of each name were told that there is no such
// resource, and whether that took a value away from any.
func (r *fuzzRun) heard() (notFound map[string]int, lost bool) {
	notFound = make(map[string]int, len(r.watchers))
	for name, w := range r.watchers {
		w.mu.Lock()
		notFound[Canonical(name)] += w.notFound
		lost = lost || w.lost
		w.mu.Unlock()
	}
	return notFound, lost
}

func (r *fuzzRun) drain(s *fuzzServer) (replies []proto.Message) {
	for {
		m, lt, names := s.next(s.stream)
		if m == nil {
			return replies
		}
		if err := s.stream.wire.send(m); err != nil {
			r.t.Fatalf("a request cannot be encoded: %v", err)
		}
		s.stream.node = nil
		s.asked(s.stream, lt, names)
		if nonce := m.(interface{ GetResponseNonce() string }).GetResponseNonce(); nonce != "" {
			replies = append(replies, m)
		}
	}
}

// lose breaks the stream to a server, which may have answered before.
func (r *fuzzRun) lose(s *fuzzServer, responded bool) {
	known := r.snapshot()
	active := r.client.home.active
	s.stream = nil
	s.disconnected(sessionEnd{err: errEnded, opened: true, responded: responded}, false)
	r.client.serial.flush()
	for key, was := range known {
		if is := r.snapshot()[key]; is.held != was.held || is.value != was.value {
			r.t.Fatalf("%s was %+v and is %+v after a stream broke", key, was, is)
		}
	}
	if r.client.home.active == active {
		return
	}
	for _, was := range known {
		if !was.held && (was.state == StateRequested || was.state == StateTimeout) {
			return
		}
	}
	r.t.Fatal("fell back to the next server although everything is known")
}

func (r *fuzzRun) reconnect(s *fuzzServer) {
	if !r.inUse(s) {
		// Nobody connects to it. A stream that it still has is ended, some time
		// after it was left.
		if s.stream != nil {
			s.stream = nil
			s.disconnected(sessionEnd{err: errIdle, opened: true, responded: true}, true)
			r.client.serial.flush()
		}
		return
	}
	if s.stream != nil {
		r.lose(s, true)
	}
	w, mode := wire(&sotw{}), ModeSotW
	if r.delta {
		w, mode = &delta{}, ModeDelta
	}
	s.stream = &stream{wire: fuzzWire{w}, node: r.client.node}
	s.connectedTo(s.stream, nil, mode)
	r.drain(s)
}

type fuzzHeld struct {
	held  bool
	value any
	state State
}

func (r *fuzzRun) snapshot() map[string]fuzzHeld {
	states := make(map[string]fuzzHeld)
	for _, s := range r.client.Dump() {
		states[s.TypeURL+s.Name] = fuzzHeld{held: s.Resource != nil, value: s.Resource, state: s.State}
	}
	return states
}

// play handles one response and checks the invariants.
func (r *fuzzRun) play(s *fuzzServer, response *response) {
	if s.stream == nil {
		return // it cannot say anything
	}
	inUse := r.inUse(s)
	response.nonce = "n"
	for i := range response.entries {
		response.entries[i].ttl = nil // expiry is a removal of its own
	}
	response.failed = nil
	before := r.snapshot()
	notFoundBefore, _ := r.heard()
	s.answered()
	if err := s.handle(context.Background(), response); err != nil {
		r.t.Fatalf("handle: %v", err)
	}
	s.recovered()
	r.client.serial.flush()
	after := r.snapshot()
	replies := r.drain(s)
	if s.started(response.typeURL) == nil {
		if len(replies) != 0 {
			r.t.Fatalf("%d answers to a response of a foreign type", len(replies))
		}
		return
	}
	if !r.delta {
		// The ACK of the state of the world has the nonce for as long as the
		// stream lives, so later subscriptions look alike.
		replies = replies[:min(len(replies), 1)]
	}
	if len(replies) != 1 {
		r.t.Fatalf("%d answers, want 1", len(replies))
	}
	rejected := replies[0].(interface{ GetErrorDetail() *statuspb.Status }).GetErrorDetail() != nil

	for key, was := range before {
		is, ok := after[key]
		if !ok || was.held && !is.held {
			r.t.Fatalf("%s was %+v and is %+v: the last good version is lost", key, was, is)
		}
		if rejected && is.state == StateDoesNotExist && was.state != StateDoesNotExist {
			r.t.Fatalf("%s was %+v and is %+v after a rejected response", key, was, is)
		}
		if is.value != was.value && !offered(response, is.value) {
			r.t.Fatalf("%s is %v, which the response does not hold", key, is.value)
		}
		if is.value != was.value && !inUse {
			r.t.Fatalf("%s is %v, from a server that nobody asks", key, is.value)
		}
		if is.value != was.value && r.client.home.links[r.client.home.active] != s.link {
			r.t.Fatalf("%s is %v, and the server that it is from is not the one in use", key, is.value)
		}
	}
	r.drainAll()
	notFoundAfter, lost := r.heard()
	for name, times := range notFoundAfter {
		// What does not exist already may be told again, when the server is back.
		if was := before[r.typeURL+name]; rejected && times != notFoundBefore[name] && was.state != StateDoesNotExist {
			r.t.Fatalf("a removal of %q was told after a rejected response", name)
		}
	}
	if lost {
		r.t.Fatal("a watcher that had a value was told that there is none")
	}
}

func offered(r *response, value any) bool {
	for _, raw := range r.entries {
		if raw.body != nil && bytes.HasSuffix(raw.body.GetValue(), []byte("="+fmt.Sprint(value))) {
			return true
		}
	}
	return false
}

// entry builds one entry of a response out of a line of the script.
func fuzzEntry(typeURL, line string) *discoveryv3.Resource {
	wrapped := &discoveryv3.Resource{Version: "v", Resource: &anypb.Any{TypeUrl: typeURL}}
	switch name, rest, ok := strings.Cut(line, "|"); {
	case ok && rest == "":
		wrapped.Name, wrapped.Resource = name, nil
	case ok:
		wrapped.Name, wrapped.Resource.Value = name, []byte(rest)
	case strings.HasPrefix(line, "^"):
		wrapped.Resource.TypeUrl = "type.googleapis.com/fuzz.Wrong"
		wrapped.Resource.Value = []byte(line[1:])
	default:
		wrapped.Resource.Value = []byte(line)
	}
	return wrapped
}

// FuzzResponses plays a script: lines that begin with "+" or "-" watch or give
// up a name, "~" reconnects, "<" loses a server that says nothing more, "#" sends
// what follows as the raw bytes of a response, and everything else is a response
// whose entries are separated by commas, "-name" being a removal. With two servers
// (gRFC A71), "2" before any of the last ones makes it that of the second. "!" lets a
// while pass. However the script has ended, Close takes no time, and nothing comes of
// what is released after it.
func FuzzResponses(f *testing.F) {
	for _, seed := range []string{
		"+a\n+b\na=1,b=2\na=1\n\na=2,b=!x",
		"+a\na=1\ngarbage\n^a=2\na=2,a=3\n-a\na=1",
		"+a\n-a\na=1\n+a\n~\na=1\n~\n-a",
		"+a\no|a=1\na|b=1\na|\nz=1,z=1",
		"+a\na=?\na=1\na=1,b=?",
		"+a\n#\x0a\x01v\x12\x02\x0a\x00",
		"+a\n+b\na=1,b=1\n-b,a=!\n-a,x",
		"+a\n+b\na=1\n<\n2~\n2a=2,b=2\n~\na=3,b=!\na=3,b=3\n2a=4",
		"+a\n<\n2~\n2-a\n2<\n~\na=1\n<\n+b\n2~\n2b=!,a=!\n-b\n~\na=1",
		"+a\na=1\n\n<\n~\nb\na=1", // a removal is told again when the server is back
		"+a\na=1\n<\n2~\n2a=2\n+b\n2~\n2#\x0a\x01v\n~\n2b=1",
		"+a\n!\n+b\na=1\n<\n-a\n~\n-b",
		"+a\n+b\na=1,b=1\n<\n~", // both are released before the server has answered
	} {
		for mode := range byte(8) {
			f.Add(mode, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, mode byte, script []byte) {
		synctest.Test(t, func(t *testing.T) { fuzzScript(t, mode, script) })
	})
}

func fuzzScript(t *testing.T, mode byte, script []byte) {
	nobody := func(ctx context.Context) (*grpc.ClientConn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	servers := []ServerConfig{{Name: "fuzz", Dial: nobody}}
	if mode&4 != 0 {
		servers = append(servers, ServerConfig{Name: "second", Dial: nobody})
	}
	client, err := NewClient(Options{
		Servers: servers,
		Types: []Type{
			{URL: fuzzFull, Name: "Full", FullStateInSotW: true, Decode: fuzzDecode},
			{URL: fuzzPartial, Name: "Partial", Decode: fuzzDecode},
		},
		Node: &corev3.Node{Id: "n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	typeURL := fuzzPartial
	if mode&1 != 0 {
		typeURL = fuzzFull
	}
	r := &fuzzRun{t: t, client: client, typeURL: typeURL, delta: mode&2 != 0, watchers: make(map[string]*fuzzWatcher)}
	for _, l := range client.links {
		r.servers = append(r.servers, &fuzzServer{link: l})
	}
	r.reconnect(r.servers[0])
	lines := strings.Split(string(script), "\n")
	for _, line := range lines[:min(len(lines), 60)] { // fewer than are slowed down
		r.do(line)
	}
	r.close()
}

// close ends the client, once everything that is watched is released, or after that.
func (r *fuzzRun) close() {
	before := len(r.watchers)%2 == 0
	release := func() {
		for _, w := range r.watchers {
			w.cancel()
		}
	}
	if before {
		release()
	}
	begun := time.Now()
	if err := r.client.Close(); err != nil {
		r.t.Fatal(err)
	}
	release()
	for _, s := range r.servers { // the goroutine of a link may be this late
		if s.stream != nil {
			s.disconnected(sessionEnd{err: errEnded, opened: true}, false)
			r.drain(s)
		}
	}
	r.client.wg.Wait()
	if took := time.Since(begun); took > 0 {
		r.t.Fatalf("Close took %v", took)
	}
}

// do carries out one line of a script.
func (r *fuzzRun) do(line string) {
	s := r.servers[0]
	if rest, ok := strings.CutPrefix(line, "2"); ok && len(r.servers) > 1 {
		s, line = r.servers[1], rest
	}
	switch {
	case strings.HasPrefix(line, "+"):
		if name := line[1:]; r.watchers[name] == nil && name != Wildcard {
			w := new(fuzzWatcher)
			w.cancel = r.client.Watch(r.typeURL, name, w)
			r.watchers[name] = w
			r.drainAll()
		}
	case strings.HasPrefix(line, "-") && r.watchers[line[1:]] != nil:
		r.watchers[line[1:]].cancel()
		delete(r.watchers, line[1:])
		r.drainAll()
	case line == "!":
		time.Sleep(20 * time.Second)
		synctest.Wait()
	case line == "~":
		r.reconnect(s)
	case line == "<":
		if r.inUse(s) { // it is not tried otherwise
			r.lose(s, false)
		}
	default:
		r.play(s, fuzzResponse(r.delta, r.typeURL, line))
	}
}

func fuzzResponse(delta bool, typeURL, line string) *response {
	raw, isRaw := strings.CutPrefix(line, "#")
	if delta {
		m := new(discoveryv3.DeltaDiscoveryResponse)
		if isRaw {
			if proto.Unmarshal([]byte(raw), m) != nil {
				m = new(discoveryv3.DeltaDiscoveryResponse)
			}
			return parseDelta(m)
		}
		m.TypeUrl = typeURL
		for entry := range strings.SplitSeq(line, ",") {
			if name, ok := strings.CutPrefix(entry, "-"); ok {
				m.RemovedResources = append(m.RemovedResources, name)
			} else {
				m.Resources = append(m.Resources, fuzzEntry(typeURL, entry))
			}
		}
		return parseDelta(m)
	}
	m := new(discoveryv3.DiscoveryResponse)
	if isRaw {
		if proto.Unmarshal([]byte(raw), m) != nil {
			m = new(discoveryv3.DiscoveryResponse)
		}
		return parseSotW(m)
	}
	m.TypeUrl, m.VersionInfo = typeURL, "v"
	for entry := range strings.SplitSeq(line, ",") {
		if entry == "" || strings.HasPrefix(entry, "-") {
			continue
		}
		wrapped := fuzzEntry(typeURL, entry)
		packed := wrapped.GetResource()
		if wrapped.GetName() != "" {
			packed = new(anypb.Any)
			if anypb.MarshalFrom(packed, wrapped, proto.MarshalOptions{}) != nil {
				continue
			}
		}
		m.Resources = append(m.Resources, packed)
	}
	return parseSotW(m)
}

package ads

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

const wrapperURL = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// response is a response of either variant.
type response struct {
	typeURL string
	version string
	nonce   string
	sotw    bool
	entries []rawResource
	// removed are names that delta says do not exist.
	removed []string
	// failed are the errors that the server reports for names (xDS TP3).
	failed []*discoveryv3.ResourceError
	// named is true if the response says which control plane it is from.
	named bool
}

// rawResource is one entry of a response, unwrapped.
type rawResource struct {
	// name is the wrapper's, which wins over the resource's own; or "".
	name    string
	version string
	body    *anypb.Any // nil for a heartbeat
	ttl     *durationpb.Duration
	// err is why it could not be unwrapped.
	err error
}

func parseSotW(m *discoveryv3.DiscoveryResponse) *response {
	r := &response{
		typeURL: m.GetTypeUrl(),
		version: m.GetVersionInfo(),
		nonce:   m.GetNonce(),
		sotw:    true,
		entries: make([]rawResource, 0, len(m.GetResources())),
		failed:  m.GetResourceErrors(),
	}
	for _, packed := range m.GetResources() {
		raw := rawResource{version: r.version, body: packed}
		if packed.GetTypeUrl() == wrapperURL {
			wrapper := new(discoveryv3.Resource)
			if err := proto.Unmarshal(packed.GetValue(), wrapper); err != nil {
				raw = rawResource{err: fmt.Errorf("unwrap %s: %w", wrapperURL, err)}
			} else {
				raw = unwrap(wrapper, r.version)
			}
		}
		r.entries = append(r.entries, raw)
	}
	return r
}

func parseDelta(m *discoveryv3.DeltaDiscoveryResponse) *response {
	r := &response{
		typeURL: m.GetTypeUrl(),
		version: m.GetSystemVersionInfo(),
		nonce:   m.GetNonce(),
		entries: make([]rawResource, 0, len(m.GetResources())),
		removed: m.GetRemovedResources(),
		failed:  m.GetResourceErrors(),
		named:   m.GetControlPlane().GetIdentifier() != "",
	}
	for _, name := range m.GetRemovedResourceNames() {
		r.removed = append(r.removed, name.GetName())
	}
	for _, wrapper := range m.GetResources() {
		r.entries = append(r.entries, unwrap(wrapper, ""))
	}
	return r
}

// unwrap takes the version of the response where the wrapper has none.
func unwrap(wrapper *discoveryv3.Resource, version string) rawResource {
	raw := rawResource{
		name:    wrapper.GetName(),
		version: wrapper.GetVersion(),
		body:    wrapper.GetResource(),
		ttl:     wrapper.GetTtl(),
	}
	if raw.name == "" {
		raw.name = wrapper.GetResourceName().GetName()
	}
	if raw.version == "" {
		raw.version = version
	}
	return raw
}

// item is one entry of a response, decoded.
type item struct {
	index   int
	name    string
	version string
	digest  digest
	raw     []byte
	value   any
	ttl     time.Duration
	// heartbeat is true if the entry only extends the time to live.
	heartbeat bool
	// unasked is true if nobody wants it; it was not decoded.
	unasked bool
	// duplicate is true if its name appears more than once.
	duplicate bool
	err       error
}

// maxIndexes bounds how many entries with one name are told of.
const maxIndexes = 10

// yieldAfter is after how many of many resources those who wait for a processor go
// first: calls must not wait until all are done.
const yieldAfter = 32

// decode decodes the entries of a response. It holds no lock while it does, and
// asks the cache first: a repetition is not decoded again.
func (l *link) decode(lt *linkType, r *response) []item {
	items := make([]item, len(r.entries))
	named := make(map[string][]int, len(items))
	for i := range r.entries {
		if i%yieldAfter == yieldAfter-1 {
			runtime.Gosched()
		}
		items[i] = l.decodeOne(lt, &r.entries[i])
		items[i].index = i
		if name := items[i].name; name != "" {
			named[name] = append(named[name], i)
		}
	}
	if len(named) == len(items) {
		return items
	}
	for _, same := range named {
		if len(same) < 2 {
			continue
		}
		// Which one counts is anybody's guess, so none does (xds_protocol,
		// "Duplicate Resource Names"). They share the reason: with one each, of all
		// indexes, a small response would need a lot of memory.
		more := ""
		if len(same) > maxIndexes {
			more = ", ..."
		}
		err := fmt.Errorf("the name appears %d times in one response (indexes %d%s)", len(same), same[:min(len(same), maxIndexes)], more)
		for _, i := range same {
			items[i].err = err
			items[i].unasked, items[i].duplicate = false, true
		}
	}
	return items
}

func (l *link) decodeOne(lt *linkType, raw *rawResource) item {
	it := item{name: Canonical(raw.name), version: raw.version, err: raw.err}
	if it.err != nil {
		return it
	}
	if raw.ttl != nil {
		if it.ttl = raw.ttl.AsDuration(); raw.ttl.CheckValid() != nil || it.ttl <= 0 {
			it.err = fmt.Errorf("ttl: %v is not positive", it.ttl)
			return it
		}
	}
	if raw.body == nil {
		it.heartbeat = true
		if it.name == "" {
			it.err = errors.New("resource: not set, and there is no name")
		}
		return it
	}
	if got := raw.body.GetTypeUrl(); got != lt.URL {
		it.err = fmt.Errorf("type %q does not match the message-wide type URL %q", got, lt.URL)
		return it
	}
	value := raw.body.GetValue()
	it.raw, it.digest = value, digestOf(raw.name, value)
	if l.recallOrSkip(lt, &it) {
		return it
	}
	name, resource, err := l.decodeSafely(lt.typeState, value)
	if it.name == "" {
		it.name = Canonical(name)
	}
	switch {
	case err != nil:
		it.err = err
	case it.name == "":
		it.err = errors.New("the resource has no name")
	}
	it.value = resource
	return it
}

// recallOrSkip reports that nothing has to be decoded: the bytes are those of
// the version in force, or nobody asked for the name.
func (l *link) recallOrSkip(lt *linkType, it *item) bool {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if e := lt.accepted[it.digest]; e != nil {
		it.name, it.value = e.name, e.resource
		return true
	}
	if it.name != "" && lt.entries[it.name] == nil && len(lt.collectionsLocked(it.name)) == 0 {
		it.unasked = true
		return true
	}
	return false
}

// decodeSafely turns a panic into an error.
func (l *link) decodeSafely(ts *typeState, value []byte) (name string, resource any, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.logger.Error("decoding an xDS resource panicked", "type", ts.Name, "panic", p, "stack", string(debug.Stack()))
			name, resource, err = "", nil, fmt.Errorf("the decoder panicked: %v", p)
		}
	}()
	return ts.Decode(value)
}

// digestOf covers the wrapper's name as well, because it overrides the name
// inside.
func digestOf(name string, value []byte) (d digest) {
	h := sha256.New()
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(name)))
	h.Write(length[:])
	h.Write([]byte(name))
	h.Write(value)
	h.Sum(d[:0])
	return d
}

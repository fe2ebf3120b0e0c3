package controlplane

import (
	"fmt"
	"iter"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// resources is a configuration as clients see it. *istio.Config is one.
type resources interface {
	// Resource returns what the node gets for a name. A message that is
	// returned twice is the same message, and never changes.
	Resource(node istio.Node, typeURL, name string) (proto.Message, bool)
	// Names returns what a wildcard subscription gets.
	Names(node istio.Node, typeURL string) []string
}

var _ resources = (*istio.Config)(nil)

// encoded is a resource as it is sent. It is immutable and shared by the
// responses that hold it.
type encoded struct {
	version string
	any     *anypb.Any
}

// generation is one configuration with what was encoded of it. It is safe for
// concurrent use.
type generation struct {
	config resources
	memo   sync.Map // proto.Message -> *encoded
}

// lookup returns a resource, or nil if there is none of that name.
func (g *generation) lookup(node istio.Node, typeURL, name string) (*encoded, error) {
	message, ok := g.config.Resource(node, typeURL, name)
	if !ok {
		return nil, nil
	}
	if known, ok := g.memo.Load(message); ok {
		return known.(*encoded), nil
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode %s %q: %w", typeURL, name, err)
	}
	e := &encoded{
		version: strconv.FormatUint(xxhash.Sum64(value), 16),
		any:     &anypb.Any{TypeUrl: typeURL, Value: value},
	}
	// Some messages are built for each question. Only one that comes a second
	// time is worth keeping; the others would pile up.
	if again, _ := g.config.Resource(node, typeURL, name); again == message {
		g.memo.Store(message, e)
	}
	return e, nil
}

// snapshot is what is served at one moment. It is immutable.
type snapshot struct {
	current *generation
	// retired were current until a moment ago, the latest first.
	retired []*generation
}

// lookup returns a resource, or nil. A cluster and its endpoints are found for
// as long as a route that names them may still be in use somewhere.
func (s *snapshot) lookup(node istio.Node, typeURL, name string) (*encoded, error) {
	for _, g := range s.serving(typeURL) {
		if e, err := g.lookup(node, typeURL, name); e != nil || err != nil {
			return e, err
		}
	}
	return nil, nil
}

// refusal is why a node does not get a resource that others may get, nil if that is not
// why.
func (s *snapshot) refusal(node istio.Node, typeURL, name string) error {
	config, ok := s.current.config.(*istio.Config)
	if !ok || typeURL != resource.ListenerType {
		return nil
	}
	return config.Refusal(node, name)
}

// names returns what a wildcard subscription gets.
func (s *snapshot) names(node istio.Node, typeURL string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, g := range s.serving(typeURL) {
			for _, name := range g.config.Names(node, typeURL) {
				if !yield(name) {
					return
				}
			}
		}
	}
}

// serving returns the generations that resources of a type come from, the
// preferred one first.
func (s *snapshot) serving(typeURL string) []*generation {
	if typeURL == resource.ClusterType || typeURL == resource.EndpointType {
		return append([]*generation{s.current}, s.retired...)
	}
	return []*generation{s.current}
}

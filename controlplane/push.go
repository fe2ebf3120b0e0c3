package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// Push serves resources in place of Istio's YAML from now on, to every client alike:
// Envoy's Listener, RouteConfiguration, Cluster and ClusterLoadAssignment, as a
// program makes them. It is for configuration that comes from Go, and for tests of
// clients. As with [Server.Update] it is the whole configuration, which replaces the
// one before; of it clients are sent what changed for them.
//
// A message of another type, one without a name, two of the same name and one that
// [Config].Check refuses are errors, all of them together, and then nothing changes.
// A server that reads a directory takes none. Push keeps copies of the messages.
func (s *Server) Push(messages ...proto.Message) error {
	if s.dir != "" {
		return fmt.Errorf("push: the configuration is read from directory %q: change the files", s.dir)
	}
	pushed, version, err := newPushed(messages, s.options.Check)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	s.mu.Lock()
	same := version == s.config.Version
	s.config.Problems, s.config.Rejected = nil, time.Time{}
	if !same {
		s.config = ConfigStatus{Version: version, Loaded: time.Now()}
		s.watches.replace(pushed)
	}
	s.mu.Unlock()
	if same {
		return nil
	}
	s.report(s.watches.push())
	s.logger.Info("configuration applied", "version", version, "resources", len(messages))
	return nil
}

// pushed are resources that are the same for every client. It is immutable.
type pushed map[string]map[string]proto.Message // by type URL and name

var _ resources = pushed(nil)

func newPushed(messages []proto.Message, check func(string, []byte) error) (pushed, string, error) {
	p := make(pushed)
	var errs []error
	for i, message := range messages {
		typeURL, name := identify(message)
		switch {
		case typeURL == "":
			errs = append(errs, fmt.Errorf("resource %d: %T is no resource that is served", i, message))
			continue
		case name == "":
			errs = append(errs, fmt.Errorf("resource %d: %s has no name", i, shortType(typeURL)))
			continue
		case p[typeURL][name] != nil:
			errs = append(errs, fmt.Errorf("resource %d: there is another %s %q", i, shortType(typeURL), name))
			continue
		}
		if p[typeURL] == nil {
			p[typeURL] = make(map[string]proto.Message)
		}
		p[typeURL][name] = proto.Clone(message)
	}
	digest := xxhash.New()
	for _, typeURL := range pushOrder {
		for _, name := range slices.Sorted(maps.Keys(p[typeURL])) {
			value, err := proto.MarshalOptions{Deterministic: true}.Marshal(p[typeURL][name])
			if err == nil && check != nil {
				err = check(typeURL, value)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s %q: %w", shortType(typeURL), name, err))
			}
			writeVersion(digest, typeURL, name)
			_, _ = digest.Write(value) // never fails, says its documentation
		}
	}
	return p, strconv.FormatUint(digest.Sum64(), 16), errors.Join(errs...)
}

// identify returns the type and the name of a resource, "" for what is none.
func identify(message proto.Message) (typeURL, name string) {
	if message == nil {
		return "", ""
	}
	typeURL = "type.googleapis.com/" + string(message.ProtoReflect().Descriptor().FullName())
	if !slices.Contains(pushOrder, typeURL) {
		return "", ""
	}
	return typeURL, nameOf(message)
}

// nameOf is the name of a resource of a type that is served.
func nameOf(message proto.Message) string {
	switch message := message.(type) {
	case interface{ GetClusterName() string }:
		return message.GetClusterName()
	case interface{ GetName() string }:
		return message.GetName()
	}
	return ""
}

// Resource implements resources.
func (p pushed) Resource(_ istio.Node, typeURL, name string) (proto.Message, bool) {
	message, ok := p[typeURL][name]
	return message, ok
}

// Names implements resources.
func (p pushed) Names(_ istio.Node, typeURL string) []string {
	if typeURL != resource.ListenerType && typeURL != resource.ClusterType {
		return nil // only those have a wildcard
	}
	return slices.Sorted(maps.Keys(p[typeURL]))
}

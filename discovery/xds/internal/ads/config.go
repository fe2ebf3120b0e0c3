package ads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/internal/hangup"
	"github.com/inboardmesh/inboard/observe"
)

// Wildcard is the name that subscribes to everything that the server has for
// this node, for types with [Type.FullStateInSotW]. Its watcher is told of every
// resource; the errors that it gets are of type *[Error] and name theirs.
//
// Do not mix it with names of the same type in the state of the world unless
// the server is known to understand "*" in a list: go-control-plane's snapshot
// cache, for one, understands only the empty list, which is what a wildcard
// alone sends.
const Wildcard = "*"

// Type is a kind of resource. It is immutable.
type Type struct {
	// URL is the type URL,
	// "type.googleapis.com/envoy.config.listener.v3.Listener".
	URL string
	// Name is the short name for errors, hooks and dumps: "Listener".
	Name string
	// FullStateInSotW is true for Listener and Cluster: a response of the state
	// of the world lists everything that is subscribed, so what it omits was
	// removed.
	FullStateInSotW bool
	// Decode turns the value of a resource's Any into an immutable value. On
	// error the name may still be set, which lets the older version of that
	// resource stay in force while the error is told to its watchers. A panic
	// is taken for an error. It must be safe for concurrent use.
	Decode func(value []byte) (name string, resource any, err error)
}

// Watcher is told about one resource. Its methods run on one goroutine of the
// [Client], one call at a time over all watchers, in the order of events, and
// without a lock held, so that they may call [Client.Watch] and the functions
// that it returned, but not [Client.Close]. The next message of the server is
// not read before they return.
type Watcher interface {
	// Changed takes a newly accepted value, or the cached one after Watch. It
	// is called again with the same value when what an AmbientError reported
	// is over.
	Changed(resource any)
	// ResourceError says that there is nothing to use: the resource does not
	// exist (the error wraps discovery.ErrNotFound), its first version was
	// invalid, or there is no connection and nothing is cached.
	ResourceError(err error)
	// AmbientError says that something is wrong while the last value stays in
	// force. If that value was removed by the server, the error wraps
	// discovery.ErrNotFound.
	AmbientError(err error)
}

// ExpiryWatcher is a [Watcher] that is also told whether what is in force has a time
// to live: before each Changed, and when the server gives or takes it later.
type ExpiryWatcher interface {
	Watcher
	Expires(expires bool)
}

// Mode chooses the variant of the protocol.
type Mode uint8

const (
	// ModeAuto tries delta and changes to the state of the world for good if
	// the server answers UNIMPLEMENTED.
	ModeAuto Mode = iota
	// ModeDelta is delta (incremental) xDS only.
	ModeDelta
	// ModeSotW is the state of the world only.
	ModeSotW
)

// ServerConfig is how to reach an xDS server and how to treat what it says.
type ServerConfig struct {
	// Name is the server's URI, for errors and hooks.
	Name string
	// ID tells servers apart: those with the same one are the same, and share
	// a connection. "" is Name.
	ID string
	// Dial returns a client connection, which the client closes. It is called
	// when the first watch appears, and again after a connection has failed.
	// It should set keepalive so that a peer that vanished is noticed within
	// 60 s, for example 30 s with a timeout of 20 s, and a connect timeout.
	Dial func(ctx context.Context) (*grpc.ClientConn, error)
	// Lines are the network connections of what Dial returns, which Close need not wait
	// for then if the server does not read. Nil has Close wait for 5 s.
	Lines *hangup.Lines
	// Mode is ModeAuto by default.
	Mode Mode
	// DeltaOnlyNamed uses delta only with a server whose responses name a control
	// plane (the field control_plane). One whose first response over delta does not,
	// is spoken to by the state of the world from then on, whatever Mode says: over
	// delta, istiod forgets the listeners and clusters that it was asked for as soon
	// as it is asked for another one, and tells of their changes no more.
	DeltaOnlyNamed bool
	// FailOnDataErrors drops a cached resource that the server removed or
	// replaced by an invalid one (gRFC A88, server feature
	// "fail_on_data_errors"). By default it is kept and the error is ambient.
	FailOnDataErrors bool
	// ResourceTimerIsTransientError reports a resource that the server does
	// not answer for after 30 s as a transient error, instead of after 15 s as
	// one that does not exist (gRFC A88, server feature
	// "resource_timer_is_transient_error").
	ResourceTimerIsTransientError bool
}

func (s *ServerConfig) id() string { return cmp.Or(s.ID, s.Name) }

// Options configure a [Client]. They are frozen when they are passed to
// [NewClient].
type Options struct {
	// Servers are those for names without an authority, in order of
	// preference; at least one. The next one is asked when none before it can
	// be reached and something is not cached (gRFC A71).
	Servers []ServerConfig
	// Authorities are the servers for xdstp: names by their authority (gRFC
	// A47). An empty list stands for Servers.
	Authorities map[string][]ServerConfig
	// Types are what can be watched. The order does not matter.
	Types []Type
	// Node is sent with the first request of each stream. The features that
	// this package implements are added to its client_features.
	Node *corev3.Node
	// Hooks is told of streams and resources.
	Hooks observe.Hooks
	// Moved is called, as watchers are, when what is in force has come from another
	// server than before, though it may be the same; nil if nobody has to know.
	Moved func()
	// Logger is told of streams and rejections; nil discards.
	Logger *slog.Logger
}

// validate reports every problem of the options.
func (o *Options) validate() error {
	var problems []error
	if len(o.Servers) == 0 {
		problems = append(problems, errors.New("no xDS server"))
	}
	problems = append(problems, checkServers(o.Servers)...)
	for _, name := range slices.Sorted(maps.Keys(o.Authorities)) {
		for _, problem := range checkServers(o.Authorities[name]) {
			problems = append(problems, fmt.Errorf("authority %q: %w", name, problem))
		}
	}
	if o.Node == nil {
		problems = append(problems, errors.New("no node"))
	}
	seen := make(map[string]bool)
	for _, t := range o.Types {
		switch {
		case t.URL == "" || t.Name == "":
			problems = append(problems, fmt.Errorf("type %q (URL %q) has no name or no URL", t.Name, t.URL))
		case t.Decode == nil:
			problems = append(problems, fmt.Errorf("type %q has no Decode", t.Name))
		case seen[t.URL]:
			problems = append(problems, fmt.Errorf("type %q is given twice", t.URL))
		}
		seen[t.URL] = true
	}
	return errors.Join(problems...)
}

func checkServers(servers []ServerConfig) (problems []error) {
	seen := make(map[string]bool)
	for i := range servers {
		s := &servers[i]
		if s.Dial == nil {
			problems = append(problems, fmt.Errorf("xDS server %q has no Dial", s.Name))
		}
		if s.Mode > ModeSotW {
			problems = append(problems, fmt.Errorf("xDS server %q has the unknown mode %d", s.Name, s.Mode))
		}
		if seen[s.id()] {
			problems = append(problems, fmt.Errorf("xDS server %q is given twice", s.Name))
		}
		seen[s.id()] = true
	}
	return problems
}

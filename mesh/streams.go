package mesh

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// StreamState is what the mesh knows of its stream to one server of the control plane.
type StreamState struct {
	// Server is its address, as the bootstrap has it.
	Server string
	// Connected tells that the stream is up, Since when it came up, or when the first
	// attempt failed since it was.
	Connected bool
	Since     time.Time
	// Failures is how many attempts have failed since it was up last, and Err why the
	// last one did. Without both nothing is asked of this server at present.
	Failures int
	Err      error
}

// Streams is the state of the streams to the control plane, sorted by server. A server
// is in it from the first attempt on: there is none before something is asked, and
// none of a server that is there in case that others fail. That a stream is broken harms
// no call: see [Mesh.ConfigSource] and [Mesh.Resources] for what is in force. Safe for
// concurrent use.
func (m *Mesh) Streams() []StreamState { return m.settings.streams.states() }

// streams remembers how the streams are. Safe for concurrent use.
type streams struct {
	mu  sync.Mutex
	all map[string]StreamState // guarded by mu; by server
}

// watchStreams has the state of streams remembered, beside what hooks are told.
func (s *settings) watchStreams() {
	s.streams = &streams{all: make(map[string]StreamState)}
	hooks := *s.hooks
	changed := hooks.StreamChanged
	hooks.StreamChanged = func(e observe.StreamEvent) {
		s.streams.note(&e, time.Now())
		if changed != nil {
			changed(e)
		}
	}
	s.hooks = &hooks
}

func (s *streams) note(e *observe.StreamEvent, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state, known := s.all[e.Server]
	if !known || state.Connected != e.Connected {
		state = StreamState{Server: e.Server, Connected: e.Connected, Since: now}
	}
	switch {
	case e.Err != nil:
		state.Failures++
		state.Err = e.Err
	default:
		state.Failures, state.Err = 0, nil
	}
	s.all[e.Server] = state
}

func (s *streams) states() []StreamState {
	s.mu.Lock()
	states := slices.Collect(maps.Values(s.all))
	s.mu.Unlock()
	slices.SortFunc(states, func(a, b StreamState) int { return strings.Compare(a.Server, b.Server) })
	return states
}

package mesh

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

const (
	// flapPause is the least between two lines of the log that say that a service
	// fails, if it answered in between.
	flapPause = time.Minute
	// failingPause is between two lines about a service that goes on to fail.
	failingPause = 10 * time.Minute
	// forgetService is how long a service is remembered that nobody asks.
	forgetService = time.Hour
)

// ServiceState is what the mesh knows of a service that the filters of its listeners
// call.
type ServiceState = observe.ServiceState

// Services is the state of the services that the filters of this process's listeners
// call, those that fail first: where the keys of tokens come from (JWKS), and who
// authorizes requests (ext_authz). One is in it from the first question on, and for an
// hour after the last. While it fails requests are refused, unless
// [ServiceState].Harmless says otherwise; [Mesh.Ready] does not look at it, for all
// processes of a service would leave at once, with the requests that they can serve.
// It is empty without such filters. Safe for concurrent use.
func (m *Mesh) Services() []ServiceState { return m.settings.services.states() }

// services remembers how the services of filters answer, and tells the log when that
// changes. Safe for concurrent use.
type services struct {
	logger *slog.Logger

	mu  sync.Mutex
	all map[serviceKey]*serviceRecord // guarded by mu
}

type serviceKey struct {
	kind             observe.ServiceKind
	cluster, address string
}

// serviceRecord is what is known of one service.
type serviceRecord struct {
	state observe.ServiceState
	// told is that the log knows that it fails, line when it was told so last.
	told bool
	line time.Time
}

func (r *serviceRecord) last() time.Time {
	if r.state.Failed.After(r.state.Succeeded) {
		return r.state.Failed
	}
	return r.state.Succeeded
}

// watchServices has the answers of services remembered and logged, beside what hooks
// are told.
func (s *settings) watchServices() {
	s.services = &services{logger: s.logger, all: make(map[serviceKey]*serviceRecord)}
	hooks := *s.hooks
	fetched, checked := hooks.KeysFetched, hooks.AuthorizationChecked
	hooks.KeysFetched = func(e observe.KeysEvent) {
		s.services.fetched(&e)
		if fetched != nil {
			fetched(e)
		}
	}
	hooks.AuthorizationChecked = func(e observe.CheckEvent) {
		s.services.checked(&e)
		if checked != nil {
			checked(e)
		}
	}
	s.hooks = &hooks
}

func (s *services) fetched(e *observe.KeysEvent) {
	if e.Reason == "closed" {
		return
	}
	s.note(serviceKey{observe.KeyService, e.Cluster, e.URL}, e.Providers, e.Err, e.Reason, e.InUse)
}

func (s *services) checked(e *observe.CheckEvent) {
	if e.Reason == "request" {
		return // its sender has it so
	}
	s.note(serviceKey{observe.AuthorizationService, e.Cluster, e.Authority}, nil, e.Err, e.Reason, e.Allowed)
}

// note takes down an answer, or the lack of one.
func (s *services) note(key serviceKey, providers []string, err error, reason string, harmless bool) {
	now := time.Now()
	s.mu.Lock()
	r := s.all[key]
	if r == nil {
		r = s.addLocked(key, now)
	}
	before := r.state
	r.state.Providers = providers
	var tell bool
	if err == nil {
		tell = before.Failing && r.told
		r.succeeded(now)
	} else {
		r.failed(now, err, reason, harmless)
		if tell = r.due(now); tell {
			r.told, r.line = true, now
		}
	}
	after := r.state
	s.mu.Unlock()
	switch {
	case !tell:
	case err == nil:
		s.logAnswer(&before, &after)
	default:
		s.logFailure(&after)
	}
}

// addLocked begins a record, and forgets those of services that nobody asks any more.
func (s *services) addLocked(key serviceKey, now time.Time) *serviceRecord {
	s.forgetLocked(now)
	r := &serviceRecord{state: observe.ServiceState{Kind: key.kind, Cluster: key.cluster, Address: key.address, Since: now}}
	s.all[key] = r
	return r
}

func (s *services) forgetLocked(now time.Time) {
	maps.DeleteFunc(s.all, func(_ serviceKey, r *serviceRecord) bool { return now.Sub(r.last()) > forgetService })
}

func (r *serviceRecord) succeeded(now time.Time) {
	if r.state.Failing {
		r.state.Failing, r.state.Harmless, r.state.Failures, r.state.Since = false, false, 0, now
		r.told = false
	}
	r.state.Succeeded = now
}

func (r *serviceRecord) failed(now time.Time, err error, reason string, harmless bool) {
	if !r.state.Failing {
		r.state.Failing, r.state.Since = true, now
	}
	r.state.Failures++
	r.state.Err, r.state.Reason, r.state.Harmless, r.state.Failed = err, reason, harmless, now
}

// due reports whether the log is to say that the service fails: at once, unless it
// was said a moment ago, and seldom again.
func (r *serviceRecord) due(now time.Time) bool {
	switch {
	case r.line.IsZero():
		return true
	case r.told:
		return now.Sub(r.line) >= failingPause
	}
	return now.Sub(r.line) >= flapPause
}

// states are the services that were asked in the last hour.
func (s *services) states() []ServiceState {
	s.mu.Lock()
	s.forgetLocked(time.Now())
	states := make([]ServiceState, 0, len(s.all))
	for _, r := range s.all {
		states = append(states, r.state)
	}
	s.mu.Unlock()
	slices.SortFunc(states, func(a, b ServiceState) int {
		return cmp.Or(compareBools(b.Failing, a.Failing), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Address, b.Address))
	})
	return states
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (s *services) logFailure(st *observe.ServiceState) {
	consequence := "requests that need it are refused"
	if st.Harmless {
		consequence = "requests pass without it"
		if st.Kind == observe.KeyService {
			consequence = "keys of before are in use"
		}
	}
	attrs := append(attrsOf(st), slog.String("reason", st.Reason), slog.Any("error", st.Err),
		slog.String("consequence", consequence), slog.Int("failures", st.Failures), slog.Time("since", st.Since))
	if st.Kind == observe.KeyService {
		s.logger.LogAttrs(context.Background(), slog.LevelWarn, "no new keys for tokens", attrs...)
		return
	}
	s.logger.LogAttrs(context.Background(), slog.LevelWarn, "no answer of the authorization service", attrs...)
}

func (s *services) logAnswer(before, after *observe.ServiceState) {
	attrs := append(attrsOf(after), slog.Int("failures", before.Failures), slog.Duration("after", after.Since.Sub(before.Since)))
	if after.Kind == observe.KeyService {
		s.logger.LogAttrs(context.Background(), slog.LevelInfo, "there are keys for tokens again", attrs...)
		return
	}
	s.logger.LogAttrs(context.Background(), slog.LevelInfo, "the authorization service answers again", attrs...)
}

// attrsOf is which service it is.
func attrsOf(st *observe.ServiceState) []slog.Attr {
	attrs := []slog.Attr{slog.String("cluster", st.Cluster)}
	if st.Kind == observe.KeyService {
		return append(attrs, slog.Any("providers", st.Providers), slog.String("url", st.Address))
	}
	if st.Address != "" {
		attrs = append(attrs, slog.String("authority", st.Address))
	}
	return attrs
}

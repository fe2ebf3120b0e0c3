package controlplane

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// Status is what a [Server] does at one moment. It marshals to the JSON of
// the status page. The caller owns it.
type Status struct {
	Config ConfigStatus `json:"config"`
	// Connections is how many are open to the listeners of [Server.Serve], but for that
	// of the status.
	Connections int            `json:"connections"`
	Limits      Limits         `json:"limits"`
	Totals      Totals         `json:"totals"`
	Clients     []ClientStatus `json:"clients"`
}

// Limits are how many may be open at once: see [Config].
type Limits struct {
	Streams     int `json:"streams"`
	Connections int `json:"connections"`
}

// Totals count what has happened since the server was made.
type Totals struct {
	// Streams is how many were opened, Stalled how many of them were ended because
	// their clients did not read, Silent because they sent no request. Refused is how
	// many were not opened because there were too many.
	Streams uint64 `json:"streams"`
	Stalled uint64 `json:"stalled"`
	Silent  uint64 `json:"silent"`
	Refused uint64 `json:"refused"`
	// Connections is how many were taken in, ConnectionsIdle how many of them had to be
	// closed because they had no call and did not go by themselves, or because another
	// one needed the room.
	// ConnectionsRefused is how many were closed at once because there were too many.
	Connections        uint64 `json:"connections"`
	ConnectionsIdle    uint64 `json:"connectionsIdle"`
	ConnectionsRefused uint64 `json:"connectionsRefused"`
	// Resources is how many were sent, NACKs how many responses were rejected.
	Resources uint64 `json:"resources"`
	NACKs     uint64 `json:"nacks"`
}

// ConfigStatus is what is served, and what was wrong with the last change.
type ConfigStatus struct {
	// Version is a hash of the files that are served.
	Version string `json:"version"`
	// Loaded is when they were.
	Loaded time.Time `json:"loaded"`
	// Files is how many there are.
	Files int `json:"files"`
	// Problems are those of the last change if it was bad: then what is
	// served is older. They go with the next good change.
	Problems []string `json:"problems,omitempty"`
	// Warnings are what is allowed in what is served, and hardly what was meant.
	Warnings []string `json:"warnings,omitempty"`
	// Routes says what became of each HTTPRoute and GRPCRoute at each of its
	// parents, as the status of the object does in Kubernetes.
	Routes []RouteStatus `json:"routes,omitempty"`
	// Rejected is when the bad change came. Zero without Problems.
	Rejected time.Time `json:"rejected,omitzero"`
}

// RouteStatus is an HTTPRoute or GRPCRoute at one parent.
type RouteStatus struct {
	// Route and Parent are "HTTPRoute shop/payment" and "Service shop/payment".
	Route  string `json:"route"`
	Parent string `json:"parent"`
	// Conditions are those of the Gateway API: Accepted and ResolvedRefs.
	Conditions []RouteCondition `json:"conditions"`
}

// RouteCondition is a condition in the words of the Gateway API.
type RouteCondition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

func routesOf(parsed *istio.Config) []RouteStatus {
	var routes []RouteStatus
	for _, from := range parsed.Routes() {
		status := RouteStatus{Route: from.Route, Parent: from.Parent}
		for _, c := range from.Conditions {
			status.Conditions = append(status.Conditions, RouteCondition(c))
		}
		routes = append(routes, status)
	}
	return routes
}

// ClientStatus is one ADS stream.
type ClientStatus struct {
	Node      string `json:"node"`
	Namespace string `json:"namespace,omitempty"`
	// Identity is the SPIFFE ID of the caller; empty on a plaintext listener.
	Identity string `json:"identity,omitempty"`
	Peer     string `json:"peer"`
	// Protocol is "delta" or "state-of-the-world".
	Protocol  string    `json:"protocol"`
	Connected time.Time `json:"connected"`
	// Types has an entry for each type URL that was asked for.
	Types map[string]TypeStatus `json:"types"`
}

// TypeStatus is the state of one resource type on a stream.
type TypeStatus struct {
	// Subscribed is how many resources the client names.
	Subscribed int `json:"subscribed"`
	// Sent and Acked are the versions of the last response and of the last
	// one that the client took.
	Sent  string `json:"sent,omitempty"`
	Acked string `json:"acked,omitempty"`
	// Current says that there was nothing to send when the server looked last. With
	// nothing in Sent, the client has come with all that there is, as after a restart of
	// the server.
	Current bool `json:"current,omitempty"`
	// Resources is how many were sent on this stream.
	Resources uint64 `json:"resources"`
	// NACKs is how many responses were rejected on this stream, NACK the last one of
	// them.
	NACKs uint64 `json:"nacks,omitempty"`
	NACK  *NACK  `json:"nack,omitempty"`
	// Refused are the listeners of servers that the client asks for and does not get
	// because they are another workload's, at most 50 of them.
	Refused []RefusedListener `json:"refused,omitempty"`
}

// maxRefused bounds the refusals that a Status has of one client.
const maxRefused = 50

// RefusedListener is a listener that is another workload's.
type RefusedListener struct {
	Name string `json:"name"`
	// Reason says which workload the configuration has at the address, and which one
	// has asked.
	Reason string `json:"reason"`
}

// NACK is a response that a client rejected.
type NACK struct {
	Version string    `json:"version,omitempty"`
	Error   string    `json:"error"`
	Time    time.Time `json:"time"`
	// Resources are those that the client named, with what it said of each. None
	// means that it named none of what it was sent.
	Resources []RejectedResource `json:"resources,omitempty"`
	// Active says that the client has taken nothing since.
	Active bool `json:"active"`
}

// Status returns what the server does now.
func (s *Server) Status() Status {
	s.mu.Lock()
	config := s.config
	clients := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		clients = append(clients, c)
	}
	opened, refused := s.opened, s.refused
	s.mu.Unlock()
	config.Problems = slices.Clone(config.Problems)
	config.Warnings = slices.Clone(config.Warnings)
	config.Routes = slices.Clone(config.Routes)
	for i := range config.Routes {
		config.Routes[i].Conditions = slices.Clone(config.Routes[i].Conditions)
	}
	slices.SortFunc(clients, func(a, b *client) int { return cmp.Compare(a.number, b.number) })
	open, most, counts := s.connections.state()
	result := Status{
		Config:      config,
		Connections: open,
		Limits:      Limits{Streams: s.maxStreams, Connections: most},
		Totals: Totals{
			Streams: opened, Stalled: s.stalls.Load(), Silent: s.silent.Load(), Refused: refused,
			Connections: counts.total, ConnectionsIdle: counts.idle, ConnectionsRefused: counts.refused,
			Resources: s.pushed.Load(), NACKs: s.rejections.Load(),
		},
		Clients: make([]ClientStatus, 0, len(clients)),
	}
	for _, c := range clients {
		result.Clients = append(result.Clients, c.status())
	}
	return result
}

func (c *client) status() ClientStatus {
	current := c.server.watches.current.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	result := ClientStatus{
		Node:      clip(c.node.ID),
		Namespace: clip(c.node.Namespace),
		Peer:      c.peer,
		Protocol:  c.protocol,
		Connected: c.since,
		Types:     make(map[string]TypeStatus, len(c.types)),
	}
	if c.caller != nil {
		result.Identity = c.caller.Identity.String()
	}
	for typeURL, state := range c.types {
		result.Types[clip(typeURL)] = TypeStatus{
			Subscribed: state.subscribed,
			Sent:       state.sent,
			Acked:      state.acked,
			Current:    state.current,
			Resources:  state.resources,
			NACKs:      state.rejections,
			NACK:       state.nack,
			Refused:    current.refusals(c.node, typeURL, state.servers),
		}
	}
	return result
}

// refusals are why a node does not get listeners.
func (s *snapshot) refusals(node istio.Node, typeURL string, names []string) (refused []RefusedListener) {
	for _, name := range names {
		if err := s.refusal(node, typeURL, name); err != nil && len(refused) < maxRefused {
			refused = append(refused, RefusedListener{Name: clip(name), Reason: clip(err.Error())})
		}
	}
	return refused
}

// StatusHandler serves GET /status, the [Status] as JSON; /healthz, which
// says that the process runs; /readyz, which says that it serves configuration; and
// /metrics, which counts for Prometheus. It shows node names and configuration errors and asks nobody
// who they are: keep it on loopback. There, a request whose Host is another
// one is refused, because it comes from a web page that made its own name
// resolve to loopback.
func (s *Server) StatusHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.MarshalIndent(s.Status(), "", "  ")
		if err != nil {
			http.Error(w, "status cannot be encoded", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write(append(body, '\n')) // a caller that went away needs no answer
	})
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.ctx.Err() != nil {
			answer(w, http.StatusServiceUnavailable, "closing")
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hostAllowed(r) {
			http.Error(w, "this Host is not served on loopback", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text + "\n")) // a caller that went away needs no answer
}

// hostAllowed reports whether the Host of a request may be meant for the
// address that it came to.
func hostAllowed(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true // not from a network
	}
	address, err := netip.ParseAddrPort(local.String())
	if err != nil || !address.Addr().Unmap().IsLoopback() {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(trimBrackets(host))
	return err == nil && ip.Unmap().IsLoopback()
}

func trimBrackets(host string) string {
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// seen remembers texts, so that what every client says is logged once.
type seen struct {
	mu    sync.Mutex
	texts map[[sha256.Size]byte]struct{} // guarded by mu; their digests, for a text may have megabytes
}

// maxSeen bounds what is remembered: clients write the texts.
const maxSeen = 1000

// first reports whether the text is new. After maxSeen different ones it
// begins again.
func (s *seen) first(text string) bool {
	digest := sha256.Sum256([]byte(text))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.texts[digest]; ok {
		return false
	}
	if s.texts == nil || len(s.texts) == maxSeen {
		s.texts = make(map[[sha256.Size]byte]struct{})
	}
	s.texts[digest] = struct{}{}
	return true
}

// Package admin lets people and programs look into a mesh while it runs: where a
// request would go and why, what the control plane has sent, whether the process is
// ready.
//
// Nothing is served by itself. The application mounts [Handler] where it wants to,
// best on a listener of its own that only this host reaches:
//
//	ln, err := net.Listen("tcp", "127.0.0.1:15021")
//	go http.Serve(ln, admin.Handler(m))
//
// "inboard explain --admin http://127.0.0.1:15021 METHOD URL" asks it, and "inboard
// status --admin http://127.0.0.1:15021" prints how the process is. There are no
// keys and no tokens in the answers, nor values of headers that sound like secrets;
// there are the names and addresses of what the process calls. It authenticates
// nobody.
package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/inboardmesh/inboard/internal/ask"
	"github.com/inboardmesh/inboard/mesh"
)

const (
	// maxQuestion bounds the body of a question.
	maxQuestion = 1 << 20
	// answerTime bounds the wait for a configuration that nobody has asked for yet.
	answerTime = 10 * time.Second
)

// Handler answers questions about a mesh, which it does not own:
//
//   - POST /explain: where a request would go, see [mesh.Mesh.Explain]. The request
//     is JSON, {"method": "GET", "url": "http://payment.shop/", "headers": {"x-user":
//     ["ann"]}}, or with "grpc": true, "method": "/package.Service/Method" and "url":
//     "mesh:///HOST:PORT". The answer is JSON, or a text for "Accept: text/plain".
//   - GET /config: where the configuration is from, the streams to the control plane,
//     the identities, the state of every xDS resource and that of the services that
//     filters call, as JSON, see [mesh.Mesh.ConfigSource], [mesh.Mesh.Streams],
//     [mesh.Mesh.Identities], [mesh.Mesh.Resources] and [mesh.Mesh.Services].
//   - GET /csds: the same with the contents of each resource, as the client status
//     discovery service has it, see [mesh.Mesh.ClientStatusJSON].
//   - GET /readyz: 200, or 503 with the reasons, see [mesh.Mesh.Ready].
//
// An error is JSON, {"error": "..."}. Pages of other origins are refused, and so
// are requests that come over loopback under a name that is not of this host: a
// browser of this host is no way in. Mount it below a path with [http.StripPrefix].
// Safe for concurrent use.
func Handler(m *mesh.Mesh) http.Handler {
	h := &handler{mesh: m}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /explain", h.explain)
	mux.HandleFunc("GET /config", h.config)
	mux.HandleFunc("GET /csds", h.clientStatus)
	mux.HandleFunc("GET /readyz", h.ready)
	mux.HandleFunc("GET /{$}", h.index)
	return http.NewCrossOriginProtection().Handler(ownNames(mux))
}

type handler struct{ mesh *mesh.Mesh }

func (h *handler) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "POST /explain  where a request would go, and why\n"+
		"GET  /config   streams, identities, the state of every xDS resource and of services that filters call\n"+
		"GET  /csds     the same with their contents, as CSDS has it\n"+
		"GET  /readyz   whether the process is ready\n")
}

func (h *handler) explain(w http.ResponseWriter, r *http.Request) {
	var question ask.Request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&question); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("the body is no request: %w: send {\"method\": \"GET\", \"url\": \"http://HOST:PORT/\"}", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	explanation, err := question.Explain(ctx, h.mesh)
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, err)
	case r.Header.Get("Accept") == "text/plain":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, explanation)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(explanation.JSON()) // who asked may be gone
	}
}

// resource is a [mesh.ResourceState] as JSON.
type resource struct {
	Type            string    `json:"type"`
	Name            string    `json:"name"`
	State           string    `json:"state"`
	Version         string    `json:"version,omitempty"`
	RejectedVersion string    `json:"rejectedVersion,omitempty"`
	Rejections      int       `json:"rejections,omitempty"`
	Error           string    `json:"error,omitempty"`
	LastKnownGood   bool      `json:"lastKnownGood,omitempty"`
	Updated         time.Time `json:"updated"`
}

func (h *handler) config(w http.ResponseWriter, _ *http.Request) {
	states := h.mesh.Resources()
	resources := make([]resource, 0, len(states))
	for i := range states {
		s := &states[i]
		one := resource{
			Type: s.Type, Name: s.Name, State: s.State, Version: s.Version,
			RejectedVersion: s.RejectedVersion, Rejections: s.Rejections, LastKnownGood: s.LastKnownGood, Updated: s.Updated,
		}
		if s.Err != nil {
			one.Error = s.Err.Error()
		}
		resources = append(resources, one)
	}
	write(w, http.StatusOK, dump{
		Source: sourceOf(h.mesh.ConfigSource()), Streams: streamsOf(h.mesh.Streams()), Identities: identitiesOf(h.mesh.Identities()),
		Resources: resources, Services: servicesOf(h.mesh.Services()), Guests: guestsOf(h.mesh.Guests()),
	})
}

// source is a [mesh.ConfigSource] as JSON.
type source struct {
	Kind          string    `json:"kind"`
	Live          int       `json:"live"`
	LastKnownGood int       `json:"lastKnownGood"`
	File          string    `json:"file,omitempty"`
	Saved         time.Time `json:"saved,omitzero"`
	Refused       string    `json:"refused,omitempty"`
	Written       time.Time `json:"written,omitzero"`
	NotWritten    string    `json:"notWritten,omitempty"`
}

func sourceOf(c mesh.ConfigSource) source {
	s := source{
		Kind: c.String(), Live: c.Live, LastKnownGood: c.LastKnownGood,
		File: c.File, Saved: c.Saved, Written: c.Written,
	}
	if c.Refused != nil {
		s.Refused = c.Refused.Error()
	}
	if c.NotWritten != nil {
		s.NotWritten = c.NotWritten.Error()
	}
	return s
}

func (h *handler) clientStatus(w http.ResponseWriter, _ *http.Request) {
	data, err := h.mesh.ClientStatusJSON()
	if err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n')) // who asked may be gone
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.mesh.Ready(); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	write(w, http.StatusOK, readiness{Ready: true})
}

func fail(w http.ResponseWriter, status int, err error) {
	write(w, status, failure{Error: err.Error()})
}

// What is answered, beside explanations.
type (
	dump struct {
		Source     source     `json:"source"`
		Streams    []stream   `json:"streams,omitempty"`
		Identities []identity `json:"identities,omitempty"`
		Resources  []resource `json:"resources"`
		Services   []service  `json:"services,omitempty"`
		Guests     []guest    `json:"guests,omitempty"`
	}
	readiness struct {
		Ready bool `json:"ready"`
	}
	failure struct {
		Error string `json:"error"`
	}
)

func write[T dump | readiness | failure](w http.ResponseWriter, status int, value T) {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil { // there is nothing in it that has no JSON
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // who asked may be gone
}

// ownNames refuses a request that came over loopback and asks for a host that is
// not this one: the page of a stranger whose name was made to lead here (DNS
// rebinding).
func ownNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); ok && local.IP.IsLoopback() && !isLoopback(r.Host) {
			fail(w, http.StatusForbidden, fmt.Errorf("host %q is not this one: use localhost or 127.0.0.1", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.IsLoopback()
}

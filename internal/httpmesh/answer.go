package httpmesh

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// The gRPC statuses of requests that cannot be served.
const (
	grpcDeadlineExceeded = 4
	grpcUnavailable      = 14
)

// fail answers a request that cannot be served.
func (s *serving) fail(w http.ResponseWriter, view *route.Request, status int, code uint32, text string) {
	if route.IsGRPC(view) {
		s.answer(w, view, &filter.Answer{IsGRPC: true, Code: code, Reason: text})
		return
	}
	http.Error(w, text, status)
}

// answer writes a response that the mesh gives. A gRPC request gets it as a
// status, as from Envoy.
func (s *serving) answer(w http.ResponseWriter, view *route.Request, a *filter.Answer) {
	h := w.Header()
	for i := range a.Headers {
		h.Add(a.Headers[i].Name, a.Headers[i].Value)
	}
	if a.IsGRPC || route.IsGRPC(view) {
		setGRPCStatus(h, a)
		w.WriteHeader(http.StatusOK)
		return
	}
	if a.Location != "" {
		h.Set("Location", a.Location)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Content()) // the peer went away: nothing is left to do
}

// setGRPCStatus makes headers those of a response without messages (gRPC over
// HTTP/2, Trailers-Only).
func setGRPCStatus(h http.Header, a *filter.Answer) {
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.FormatUint(uint64(a.GRPCCode()), 10))
	h.Set("Grpc-Message", grpcMessage(a.Reason))
}

// grpcMessage escapes what a header cannot hold (gRPC over HTTP/2,
// Percent-Encoded).
func grpcMessage(text string) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

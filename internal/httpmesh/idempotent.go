package httpmesh

import "net/http"

// isIdempotent reports whether a request may be acted on twice: by its method
// (RFC 9110, section 9.2.2), or because it has a key by which its server notices
// (as net/http has it).
func isIdempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return len(req.Header["Idempotency-Key"]) > 0 || len(req.Header["X-Idempotency-Key"]) > 0
}

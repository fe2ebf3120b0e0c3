package filter

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// Answer is a response that the mesh gives itself: an injected abort, a refusal,
// a direct response, a redirect.
type Answer struct {
	// Status is the HTTP status. For an abort with a gRPC status, IsGRPC is
	// true and Code holds it; over HTTP it is a 200 with a header grpc-status, as
	// from Envoy, whatever the request was.
	Status int
	IsGRPC bool
	Code   uint32
	// Body is sent unless the status has none: see [Answer.Content].
	Body []byte
	// Location is set for a redirect.
	Location string
	// Headers are further headers of the response; of a gRPC call, metadata. A
	// name may be there more than once.
	Headers []Header
	// Reason says what made the answer, for errors and logs. The caller of a gRPC
	// call reads it, so that it holds nothing that is not for strangers.
	Reason string
	// Verbatim is set if Reason is a text of the configuration: the caller of a gRPC
	// call gets it as it is, as the status message that Envoy makes of a body. It may
	// be empty.
	Verbatim bool
}

// Direct is the answer of a direct response.
func Direct(status int, body []byte) *Answer {
	return &Answer{Status: status, Body: body, Reason: string(body), Verbatim: true}
}

// Content is the body to send: nil for a status whose responses have none (RFC 9110,
// sections 15.2, 15.3.5, 15.3.6 and 15.4.5).
func (a *Answer) Content() []byte {
	switch {
	case a.Status < http.StatusOK, a.Status == http.StatusNoContent, a.Status == http.StatusResetContent, a.Status == http.StatusNotModified:
		return nil
	}
	return a.Body
}

// Header is one header of an [Answer]. Name is lower case.
type Header struct{ Name, Value string }

// GRPCCode is the gRPC status of the answer. An HTTP status is mapped as gRFC
// A33 says ("HTTP to gRPC Status Code Mapping").
func (a *Answer) GRPCCode() codes.Code {
	if a.IsGRPC {
		return codes.Code(a.Code)
	}
	switch a.Status {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}

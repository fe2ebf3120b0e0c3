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
	Body   []byte
	// Location is set for a redirect.
	Location string
	// Headers are further headers of the response; of a gRPC call, metadata. A
	// name may be there more than once.
	Headers []Header
	// Reason says what made the answer, for errors and logs. The caller of a gRPC
	// call reads it, so that it holds nothing that is not for strangers.
	Reason string
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

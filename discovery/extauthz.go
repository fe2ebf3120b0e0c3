package discovery

import "time"

// ExtAuthz is the external authorization filter: a service is asked whether a
// request is allowed. Without an answer it is not, unless FailureModeAllow says
// so.
type ExtAuthz struct {
	// Exactly one of GRPC and HTTP is set.
	GRPC *AuthzGRPC
	HTTP *AuthzHTTP
	// FailureModeAllow lets requests pass about which there is no answer, and
	// FailureModeHeader tells the application so.
	FailureModeAllow, FailureModeHeader bool
	// StatusOnError is the HTTP status of a request about which there is no
	// answer. Envoy's default of 403 is filled in by the decoder.
	StatusOnError int
	// Body is how much of the request's body the service gets; nil is none.
	Body *AuthzBody
	// ClearRoute routes a request again that the service has changed.
	ClearRoute bool
	// MetadataNamespaces are the dynamic metadata that a gRPC service gets.
	MetadataNamespaces []string
	// AllowedHeaders are the request's headers that the service gets. Nil is all
	// of them for a gRPC service, and those that every HTTP service gets for that.
	// DisallowedHeaders are left out in any case.
	AllowedHeaders, DisallowedHeaders []StringMatch
	// RawHeaders hands a gRPC service the headers as they are, and not joined and
	// made UTF-8.
	RawHeaders bool
	// PeerCertificate and TLSSession hand on the caller's certificate and the
	// name that it asked for.
	PeerCertificate, TLSSession bool
	// PerMillion of the requests are asked about; nil is all of them.
	PerMillion *uint32
	// EnabledMetadata is what the dynamic metadata of a request must hold for it
	// to be asked about; nil asks about all.
	EnabledMetadata *MetadataMatch
	// DenyAtDisable denies the requests that are not asked about.
	DenyAtDisable bool
	// MaxDeniedBody cuts the body of a denial; 0 does not.
	MaxDeniedBody uint32
	// IgnoreMetadata leaves out the dynamic metadata of the service's answer.
	IgnoreMetadata bool
}

func (*ExtAuthz) filterConfig() {}

// UsedClusters is that of the service.
func (f *ExtAuthz) UsedClusters() []string {
	if f.GRPC != nil {
		return []string{f.GRPC.Cluster}
	}
	return []string{f.HTTP.Cluster}
}

// AuthzGRPC is a service with Envoy's API, envoy.service.auth.v3.Authorization.
type AuthzGRPC struct {
	Cluster string
	// Authority is what the service is called; the cluster's name by default.
	Authority string
	// Timeout bounds a check. Envoy's default of 200 ms is filled in by the
	// decoder.
	Timeout time.Duration
	// Metadata are headers of every check.
	Metadata []HeaderValue
}

// AuthzHTTP is a service that gets the request's own method, path and headers,
// and answers with 200 if it is allowed.
type AuthzHTTP struct {
	Cluster string
	// Secure refuses a cluster without TLS: the service's URI is https.
	Secure bool
	// Timeout bounds a check.
	Timeout time.Duration
	// PathPrefix comes before the path. PathOverride takes its place; "" keeps it.
	PathPrefix, PathOverride string
	// AllowedHeaders are the request's headers that the service gets, beside
	// those of [ExtAuthz]. HeadersToAdd replace them.
	AllowedHeaders []StringMatch
	HeadersToAdd   []HeaderValue
	// UpstreamHeaders are the headers of the service's answer that become headers
	// of the request, in place of its own; UpstreamHeadersToAppend beside them.
	UpstreamHeaders, UpstreamHeadersToAppend []StringMatch
	// ClientHeaders are those of a denial that its caller gets, nil all of them;
	// ClientHeadersOnSuccess those that are added to the application's response.
	ClientHeaders, ClientHeadersOnSuccess []StringMatch
	// MetadataHeaders are those that become dynamic metadata.
	MetadataHeaders []StringMatch
}

// AuthzBody is how much of a body is read for an authorization service.
type AuthzBody struct {
	// MaxBytes of the body are read. A longer one is refused with 413, unless
	// AllowPartial hands on its beginning.
	MaxBytes     int
	AllowPartial bool
	// AsBytes packs it as bytes, and not as a text.
	AsBytes bool
}

// ExtAuthzPerRoute is the configuration of [ExtAuthz] in a route: what is
// different from the listener's.
type ExtAuthzPerRoute struct {
	// ContextExtensions are told to a gRPC service.
	ContextExtensions map[string]string
	// NoBody reads no body; Body, if it is not nil, reads another part of it.
	NoBody bool
	Body   *AuthzBody
}

func (*ExtAuthzPerRoute) filterConfig() {}

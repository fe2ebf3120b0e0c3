package discovery

import (
	"crypto/sha256"
	"crypto/tls"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/breaker"
	"github.com/inboardmesh/inboard/health"
	"github.com/inboardmesh/inboard/retry"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Target is the complete, consistent configuration of one destination.
type Target struct {
	// Name is what was asked for: "payment.shop.svc.cluster.local:8080".
	Name string
	// Listener carries the settings of the HTTP connection manager. Never nil.
	Listener *APIListener
	// Routes is never nil.
	Routes *RouteTable
	// Clusters holds every cluster that a route of the table can choose, and what
	// aggregate clusters consist of.
	Clusters map[string]ClusterResult
}

// ClusterResult is a running cluster, or why there is none. A bad cluster
// fails its own calls and nobody else's.
type ClusterResult struct {
	Cluster *Cluster
	// Endpoints is never nil if Err is nil; it may be empty.
	Endpoints *Assignment
	// Leaves are, for an aggregate cluster, the clusters that have endpoints and
	// that it comes to, in order. Each is beside it, without an error.
	Leaves []string
	// Secrets are those that the cluster's TLS settings name.
	Secrets Secrets
	Err     error
}

// APIListener is an xDS Listener with an api_listener: the client side of a
// destination.
type APIListener struct {
	Name string
	// RouteName is the RouteConfiguration to follow; "" if Routes is inline.
	RouteName string
	Routes    *RouteTable
	// Filters are the HTTP filters in order, without the terminal router.
	Filters []HTTPFilter
	// MaxStreamDuration is common_http_protocol_options.max_stream_duration;
	// 0 means none.
	MaxStreamDuration time.Duration
	// StreamIdleTimeout is that of routes without an idle timeout; 0 means none.
	// Envoy's default of 5 min is not filled in: calls in one process may well
	// wait for longer, and have deadlines.
	StreamIdleTimeout time.Duration
	// HideOriginals leaves out x-envoy-original-path and x-envoy-original-host,
	// which tell an upstream what was rewritten (suppress_envoy_headers).
	HideOriginals bool
}

// HTTPFilter is one HTTP filter of a listener.
type HTTPFilter struct {
	// Name is the instance's name in the configuration; per-route
	// configuration is found by it.
	Name     string
	Config   FilterConfig
	Disabled bool
}

// FilterConfig is the typed configuration of an HTTP filter, such as *Fault.
type FilterConfig interface{ filterConfig() }

// Cluster is how to reach one set of endpoints.
type Cluster struct {
	Name string
	// Aggregate are the clusters that an aggregate cluster consists of, the
	// preferred one first; they may be aggregates too. It is nil for a cluster with
	// endpoints of its own.
	Aggregate []string
	// EDSName is the ClusterLoadAssignment to follow; "" if Static or Aggregate is
	// set.
	EDSName string
	// Static is the inline assignment of a cluster that is not of type EDS.
	Static *Assignment
	// DNS tells that the addresses of Static may begin with names, and how they
	// are resolved; nil is that they do not.
	DNS *DNS

	Balancer balancer.Config
	// Hash stands in for the hash policies of routes, if it is not nil.
	Hash []HashPolicy
	// ConnectTimeout covers TCP and TLS. Envoy's default of 5 s is filled in by
	// the decoder.
	ConnectTimeout time.Duration
	// Limits are the circuit breakers' limits by routing priority.
	Limits [2]breaker.Limits
	// RetryBudget overrides Limits.MaxRetries when set.
	RetryBudget [2]*retry.Budget
	// RetryThrottle is gRFC A6's throttle of retries; nil means none.
	RetryThrottle *retry.ThrottleSettings
	// Breaker is the error-rate breaker; nil means off.
	Breaker *breaker.Settings
	// EndpointBreaker is the error-rate breaker that each endpoint has; nil means
	// none.
	EndpointBreaker *breaker.Settings
	// LoadReports says that the control plane wants to know of the cluster's load;
	// nil is that it does not.
	LoadReports *LoadReports
	// TrackRemaining, by routing priority, reports what is left of Limits.
	TrackRemaining [2]bool
	// HostConnections limits the connections of HTTP to one endpoint, by routing
	// priority; 0 is no limit.
	HostConnections [2]uint32
	// Outlier is outlier detection; nil means off.
	Outlier *balancer.OutlierConfig
	// HealthCheck is how endpoints are checked actively; nil means not at all.
	HealthCheck *health.Config
	// TLS is for the endpoints that none of TLSMatches is for; nil is plaintext.
	TLS *UpstreamTLS
	// TLSMatches say otherwise of some endpoints, by their metadata; the first
	// that matches counts.
	TLSMatches []TLSMatch
	// Protocol is how to speak HTTP to the endpoints, HTTP2 what HTTP/2 is told.
	Protocol HTTPProtocol
	HTTP2    HTTP2Options
	// MaxRequestsPerConnection closes a connection gracefully after so many
	// requests; 0 means no limit.
	MaxRequestsPerConnection uint32
	// IdleTimeout closes a connection without requests, and one of TCP over which
	// nothing comes or goes; 0 means never. Envoy's default of 1 h is filled in by
	// the decoder.
	IdleTimeout time.Duration
	// MaxConnectionDuration closes a connection, of requests gracefully; 0 means no
	// limit.
	MaxConnectionDuration time.Duration
	// Families is for endpoints with several addresses.
	Families Families
	// PreconnectRatio is for how many calls there are to be connections to an
	// endpoint for each call that runs, up to 3: above 1, some are made before
	// they are needed. 0 and 1 make none.
	PreconnectRatio float64
	// KeepAlive is how TCP connections are probed; nil leaves that to the dialer.
	KeepAlive *KeepAlive
}

// HTTPProtocol is the HTTP version towards an upstream.
type HTTPProtocol uint8

const (
	// HTTP1 is HTTP/1.1, Envoy's default.
	HTTP1 HTTPProtocol = iota
	// HTTP2 is HTTP/2, with or without TLS.
	HTTP2
	// HTTPAuto lets ALPN decide; without TLS it is HTTP/1.1.
	HTTPAuto
	// HTTPDownstream uses the version that the application's request asks
	// for: HTTP/2 if Request.ProtoMajor is 2, else HTTP/1.1.
	HTTPDownstream
)

// RoutingPriority selects a set of circuit-breaker limits.
type RoutingPriority uint8

const (
	// PriorityDefault is Envoy's DEFAULT.
	PriorityDefault RoutingPriority = iota
	// PriorityHigh is Envoy's HIGH.
	PriorityHigh
)

// UpstreamTLS is TLS towards an upstream. Connections made under different
// settings are never shared.
type UpstreamTLS struct {
	// IdentityInstance is the certificate provider instance whose certificate
	// is presented; "" presents none.
	IdentityInstance string
	// RootInstance is the certificate provider instance whose roots verify the
	// peer.
	RootInstance string
	// SystemRoots verify the peer by the operating system's roots, instead of
	// RootInstance. Without Names it is accepted if it has a SPIFFE ID of SANs.
	SystemRoots bool
	// SANs are the allowed subject alternative names that are URIs. Empty, with
	// no Names, means that any member of the own trust domain is accepted
	// (decision D11).
	SANs []StringMatch
	// Names are allowed names of other types: those of a server outside the
	// mesh, which then need not have a SPIFFE ID. One of SANs or of Names must
	// match.
	Names []NameMatch
	SNI   string
	ALPN  []string
	TLSParams
}

// TLSParams are what both sides of TLS may be told.
type TLSParams struct {
	// MinVersion and MaxVersion are versions of crypto/tls; 0 is unsaid, which is
	// TLS 1.3 among members, and TLS 1.2 or newer to servers outside the mesh.
	MinVersion, MaxVersion uint16
	// CipherSuites are those of TLS 1.2 and Curves the key exchanges; nil is
	// unsaid.
	CipherSuites []uint16
	Curves       []tls.CurveID
	// Certificates and Keys are SHA-256 digests of which the peer's certificate
	// must have one, unless there are none.
	Certificates, Keys [][sha256.Size]byte
	// IdentitySecret and RootSecret are the names of secrets of the control plane
	// that stand in for IdentityInstance and RootInstance; "" is none. What they
	// hold is beside the cluster or the listener, see [ClusterResult.Secrets].
	IdentitySecret, RootSecret string
	// Bundles verify the peer by the roots of its trust domain (nobody, if there are
	// none), in place of
	// RootInstance; nil is none. Without SANs, every member of one of the trust
	// domains is accepted.
	Bundles *meshtls.Identity
	// Revocation withdraws certificates beside that of the roots; nil is none.
	Revocation *meshtls.Revocation
}

// NameMatch matches subject alternative names of a type.
type NameMatch struct {
	Type NameType
	// OID is the type of a NameOther.
	OID string
	StringMatch
}

// NameType is a type of subject alternative names that is not a URI.
type NameType uint8

// The types of names.
const (
	NameDNS NameType = iota + 1
	NameEmail
	NameIP
	NameOther
)

// TLSMatchMetadata is the namespace of the endpoint metadata that a [TLSMatch]
// looks at.
const TLSMatchMetadata = "envoy.transport_socket_match"

// TLSMatch is how to reach the endpoints whose metadata it matches.
type TLSMatch struct {
	Name string
	// Match are keys and values of which an endpoint must have all; without any
	// it matches every endpoint.
	Match map[string]string
	// TLS is nil for plaintext.
	TLS *UpstreamTLS
}

// Matches reports whether an endpoint with the given metadata is meant.
func (m *TLSMatch) Matches(metadata map[string]map[string]string) bool {
	have := metadata[TLSMatchMetadata]
	for key, want := range m.Match {
		if value, ok := have[key]; !ok || value != want {
			return false
		}
	}
	return true
}

// StringMatch is Envoy's StringMatcher.
type StringMatch struct {
	Kind  StringMatchKind
	Value string
	// IgnoreCase is without regard to the case of ASCII letters.
	IgnoreCase bool
	// Regex is set for MatchRegex: anchored, the whole string must match.
	Regex *Regex
}

// StringMatchKind is how a [StringMatch] compares.
type StringMatchKind uint8

// The kinds of Envoy's StringMatcher.
const (
	MatchExact StringMatchKind = iota
	MatchPrefix
	MatchSuffix
	MatchContains
	MatchRegex
)

// Assignment is the endpoints of a cluster (ClusterLoadAssignment).
type Assignment struct {
	Name       string
	Localities []LocalityEndpoints
	// OverprovisioningFactor is in percent; Envoy's default is 140.
	OverprovisioningFactor uint32
	// Drops are drop_overloads, applied one after the other.
	Drops []Drop
}

// LocalityEndpoints is the endpoints of one locality at one priority.
type LocalityEndpoints = balancer.LocalityEndpoints

// Drop refuses a share of calls before they are sent.
type Drop struct {
	Category string
	// PerMillion of the calls are dropped.
	PerMillion uint32
}

// Inbound is the configuration of a listener of this process.
type Inbound struct {
	// Name is the resource's name, Address the listener's.
	Name    string
	Address string
	Chains  []FilterChain
	// Default is used if no chain matches; nil refuses the connection.
	Default *FilterChain
	// Clusters holds every cluster that a filter calls.
	Clusters map[string]ClusterResult
	// Secrets are those that the chains' TLS settings name.
	Secrets Secrets
}

// ClusterUser is a [FilterConfig] whose filter calls clusters.
type ClusterUser interface {
	FilterConfig
	// UsedClusters are the names of the clusters, each at least once.
	UsedClusters() []string
}

// FilterChain is what happens to the connections that it matches.
type FilterChain struct {
	Name  string
	Match ChainMatch
	// TLS is nil for plaintext.
	TLS *DownstreamTLS
	// StrictPaths refuses requests whose path has more than one reading, such as
	// "/a/../b" and "/a%2Fb". A chain with policies does that anyway.
	StrictPaths bool
	// Network are the network filters in order, before the HTTP connection
	// manager: they decide about connections.
	Network []*RBAC
	// TCP tells that the connections speak a protocol of the application's own:
	// instead of the HTTP connection manager the chain ends in Envoy's TCP proxy. It
	// has no Filters, and Routes that leave every request to the application.
	TCP bool
	// Filters are the inbound HTTP filters in order, without the router.
	Filters []HTTPFilter
	Routes  *RouteTable
	// RouteName is the RouteConfiguration to follow; "" if Routes is inline.
	// A published Inbound has Routes always.
	RouteName string
	// MaxStreamDuration is common_http_protocol_options.max_stream_duration.
	MaxStreamDuration time.Duration
	// StreamIdleTimeout ends a request of which nothing has come and nothing has
	// been answered for so long; 0 means none, as Envoy's default of 5 min is not
	// filled in: an application may well think for longer.
	StreamIdleTimeout time.Duration
	// RequestTimeout is how long a client may take to send a request whole, from
	// the end of its headers on; 0 means forever.
	RequestTimeout time.Duration
	// Headers bound the headers of requests; Forwarding is what is made of those
	// that tell of the client.
	Headers    HeaderLimits
	Forwarding Forwarding
}

// ChainMatch selects a filter chain by what is known of a connection.
type ChainMatch struct {
	// TransportProtocol is "tls", "raw_buffer" or "" for any.
	TransportProtocol string
	// ApplicationProtocols are the ALPN names of which the client must offer
	// one; empty matches any.
	ApplicationProtocols []string
	// DestinationPort is 0 for any.
	DestinationPort uint32
}

// DownstreamTLS is TLS for accepted connections.
type DownstreamTLS struct {
	IdentityInstance string
	RootInstance     string
	// RequireClientCertificate makes it mutual.
	RequireClientCertificate bool
	// SANs are the allowed peers. Empty means that any member of the own trust
	// domain is accepted, as by [UpstreamTLS] (decision D11).
	SANs []StringMatch
	ALPN []string
	TLSParams
}

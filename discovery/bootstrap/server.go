package bootstrap

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/inboardmesh/inboard/internal/hangup"
)

// The server features that the mesh knows. Others are ignored, as gRFC A27
// says.
const (
	// FeatureFailOnDataErrors drops a resource that the server deleted or
	// replaced by an invalid one, instead of keeping the last good one
	// (gRFC A88).
	FeatureFailOnDataErrors = "fail_on_data_errors"
	// FeatureResourceTimerIsTransientError takes a resource that the server
	// does not answer for as unavailable, not as absent (gRFC A88).
	FeatureResourceTimerIsTransientError = "resource_timer_is_transient_error"
	// FeatureTrustedXDSServer lets the server decide what authority a client
	// puts into its requests (gRFC A81).
	FeatureTrustedXDSServer = "trusted_xds_server"
	// FeatureIgnoreResourceDeletion keeps deleted resources (gRFC A53). It is
	// the default since gRFC A88.
	FeatureIgnoreResourceDeletion = "ignore_resource_deletion"
	// FeatureXDSV3 selects version 3 of xDS (gRFC A30), the only one there is.
	FeatureXDSV3 = "xds_v3"
)

const (
	// A peer that vanished without closing is noticed after 50 s at most.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 20 * time.Second
	// maxReceive replaces gRPC's 4 MiB, which the configuration of a large
	// mesh exceeds.
	maxReceive = 256 << 20
)

const wantURI = `the gRPC target of the control plane, such as "istiod.istio-system.svc:15012"`

// APIType is the variant of the xDS protocol that a server speaks.
type APIType uint8

const (
	// APIAuto tries Delta and falls back to SotW for good if the server does
	// not implement it.
	APIAuto APIType = iota
	// APIDelta is the incremental protocol, "DELTA_GRPC".
	APIDelta
	// APISotW is the state of the world protocol, "GRPC".
	APISotW
)

// String returns the name of Envoy's ApiConfigSource, "" for [APIAuto].
func (t APIType) String() string {
	switch t {
	case APIDelta:
		return "DELTA_GRPC"
	case APISotW:
		return "GRPC"
	case APIAuto:
	}
	return ""
}

// Server is one server of the control plane.
type Server struct {
	// URI is a gRPC target.
	URI string
	// ChannelCreds secure the connection: "insecure", "tls" (gRFC A65), or a
	// type registered with google.golang.org/grpc/xds/bootstrap.
	ChannelCreds Credentials
	// CallCreds are added to every stream: "jwt_token_file" (gRFC A97), or a
	// registered type.
	CallCreds []Credentials
	// Features are server_features.
	Features []string
	API      APIType
	// Certificate returns the certificate of now of a certificate provider
	// instance, or why there is none: then none is presented. It is asked at
	// every handshake if ChannelCreds name an instance, and must be safe for
	// concurrent use. The mesh sets it, unless the program did; nil is an error
	// of Dial if there is an instance to ask for.
	Certificate func(instance string) (*tls.Certificate, error)
	// DialOptions are appended to the mesh's own, for what has no form in
	// JSON, such as a dialer of an in-memory network.
	DialOptions []grpc.DialOption
}

// Has reports whether the server has a feature.
func (s *Server) Has(feature string) bool { return slices.Contains(s.Features, feature) }

// CertificateInstance returns the certificate provider instance whose
// certificate the channel presents, "" if ChannelCreds name none.
func (s *Server) CertificateInstance() string {
	if s.ChannelCreds.Type != channelTLS {
		return ""
	}
	var found problems
	return parseTLS(&found, "channel_creds", s.ChannelCreds.Config).instance
}

// Dial returns a channel to the server; it connects when it is first used. The
// files of credentials are read at that time, and again for each connection or
// stream. A peer that vanishes is noticed by keepalive within a minute.
//
// release frees what registered credentials hold. The caller calls it once,
// after closing the channel.
func (s *Server) Dial() (conn *grpc.ClientConn, release func(), err error) {
	creds, release, err := s.credentials(hangup.Of(s.DialOptions))
	if err != nil {
		return nil, nil, fmt.Errorf("server %q: %w", s.URI, err)
	}
	options := append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
		// Nothing but the bootstrap configures this channel.
		grpc.WithDisableServiceConfig(),
	}, creds...)
	conn, err = grpc.NewClient(s.URI, append(options, s.DialOptions...)...)
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("server %q: %w", s.URI, err)
	}
	return conn, release, nil
}

// check adds the mistakes of s, which stands at path, to found.
func (s *Server) check(found *problems, path string, where credentialPaths) {
	switch {
	case s.URI == "":
		found.addf(path+".server_uri", "is required: %s", wantURI)
	case strings.HasPrefix(s.URI, "http://"), strings.HasPrefix(s.URI, "https://"):
		found.addf(path+".server_uri", "expected %s, without http:// or https://: channel_creds say whether it is TLS", wantURI)
	case strings.ContainsFunc(s.URI, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		found.addf(path+".server_uri", "expected %s, found white space or control characters", wantURI)
	}
	if s.API > APISotW {
		found.addf(path+".api_type", "expected APIAuto, APIDelta or APISotW, found %d", s.API)
	}
	s.ChannelCreds.checkChannel(found, where.channel)
	for i, creds := range s.CallCreds {
		at := fmt.Sprintf("%s.call_creds[%d]", path, i)
		if i < len(where.call) {
			at = where.call[i]
		}
		creds.checkCall(found, at)
		if s.ChannelCreds.Type == channelInsecure {
			found.addf(at+".type", "%q is not sent in plaintext: set channel_creds to %q", shorten(creds.Type), channelTLS)
		}
	}
}

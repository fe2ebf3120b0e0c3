package decode

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	mtlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rbac/principals/mtls_authenticated/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/inboardmesh/inboard/discovery"
)

// unseenHeaders are those that a server is not shown over every protocol: net/http and
// gRPC act on them and take them away.
var unseenHeaders = []string{"te", "trailer", "transfer-encoding", "expect"}

// rbacHeader decodes a HeaderMatcher of a rule. What a server of this mesh never
// sees of a request is refused: a rule about it would deny nothing.
func (d *decoder) rbacHeader(at path, m *routev3.HeaderMatcher, http bool) discovery.RBACRule {
	d.needsRequest(at, http)
	match := d.headerMatch(at, m)
	switch in := at.field("name"); {
	case match.Name == ":scheme", slices.Contains(unseenHeaders, match.Name), strings.HasPrefix(match.Name, "grpc-"), strings.HasSuffix(match.Name, "-bin"):
		d.refusef(in, "%q cannot be matched (gRFC A41)", match.Name)
	case match.Name == "host":
		match.Name = ":authority"
	case strings.HasPrefix(match.Name, ":") && match.Name != ":path" && match.Name != ":method" && match.Name != ":authority":
		d.refusef(in, "%q is not supported: use :path, :method or :authority", match.Name)
	}
	if match.Name == ":path" {
		match.String = canonicalPath(match.String)
	}
	return discovery.RBACRule{Kind: discovery.RBACHeader, Header: match}
}

// customPrincipal decodes the one extension of principals that there is: the
// names in a certificate, by their types.
func (d *decoder) customPrincipal(at path, m *corev3.TypedExtensionConfig) discovery.RBACRule {
	in := at.field("typed_config")
	config := &mtlsv3.Config{}
	if !d.unpack(in, m.GetTypedConfig(), config) {
		return discovery.RBACRule{}
	}
	matcher := config.GetSanMatcher()
	switch {
	case matcher == nil && !config.GetAnyValidatedClientCertificate():
		d.refusef(in, "must have san_matcher or any_validated_client_certificate")
	case matcher == nil:
		return discovery.RBACRule{Kind: discovery.RBACPrincipal}
	case config.GetAnyValidatedClientCertificate():
		d.refusef(in.field("any_validated_client_certificate"), "must not be set beside san_matcher")
	}
	in = in.field("san_matcher")
	kind := discovery.RBACURI
	switch matcher.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_URI:
	case tlsv3.SubjectAltNameMatcher_DNS:
		kind = discovery.RBACDNS
	default:
		d.refusef(in.field("san_type"), "%s is not supported: use URI or DNS", matcher.GetSanType())
	}
	return text(kind, d.stringMatch(in.field("matcher"), matcher.GetMatcher()))
}

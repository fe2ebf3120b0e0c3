package adstest

import (
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Request is a request of either variant.
type Request struct {
	// At is when it arrived.
	At      time.Time
	Node    *corev3.Node
	TypeURL string
	// Nonce is response_nonce, Error error_detail.
	Nonce string
	Error *statuspb.Status

	// Version and Names are those of the state of the world.
	Version string
	Names   []string

	// Subscribe, Unsubscribe and InitialVersions are those of delta.
	Subscribe       []string
	Unsubscribe     []string
	InitialVersions map[string]string
}

// String describes the request for a test's failure.
func (r *Request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{type %s, version %q, nonce %q", r.TypeURL[strings.LastIndexByte(r.TypeURL, '.')+1:], r.Version, r.Nonce)
	if r.Names != nil {
		fmt.Fprintf(&b, ", names %q", r.Names)
	}
	if r.Subscribe != nil {
		fmt.Fprintf(&b, ", subscribe %q", r.Subscribe)
	}
	if r.Unsubscribe != nil {
		fmt.Fprintf(&b, ", unsubscribe %q", r.Unsubscribe)
	}
	if r.InitialVersions != nil {
		fmt.Fprintf(&b, ", initial versions %v", r.InitialVersions)
	}
	if r.Error != nil {
		fmt.Fprintf(&b, ", error %q", r.Error.GetMessage())
	}
	if r.Node != nil {
		fmt.Fprintf(&b, ", node %q", r.Node.GetId())
	}
	b.WriteByte('}')
	return b.String()
}

func fromSotW(m *discoveryv3.DiscoveryRequest) *Request {
	return &Request{
		At:      time.Now(),
		Node:    m.GetNode(),
		TypeURL: m.GetTypeUrl(),
		Nonce:   m.GetResponseNonce(),
		Error:   m.GetErrorDetail(),
		Version: m.GetVersionInfo(),
		Names:   m.GetResourceNames(),
	}
}

func fromDelta(m *discoveryv3.DeltaDiscoveryRequest) *Request {
	return &Request{
		At:              time.Now(),
		Node:            m.GetNode(),
		TypeURL:         m.GetTypeUrl(),
		Nonce:           m.GetResponseNonce(),
		Error:           m.GetErrorDetail(),
		Subscribe:       m.GetResourceNamesSubscribe(),
		Unsubscribe:     m.GetResourceNamesUnsubscribe(),
		InitialVersions: m.GetInitialResourceVersions(),
	}
}

// Response returns a response of the state of the world.
func Response(typeURL, version, nonce string, resources ...proto.Message) *discoveryv3.DiscoveryResponse {
	response := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL, VersionInfo: version, Nonce: nonce}
	for _, r := range resources {
		response.Resources = append(response.Resources, Any(r))
	}
	return response
}

// DeltaResponse returns a delta response. Removals are added with
// [Removing].
func DeltaResponse(typeURL, nonce string, resources ...*discoveryv3.Resource) *discoveryv3.DeltaDiscoveryResponse {
	return &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: nonce, Resources: resources}
}

// Removing adds removed_resources to a delta response and returns it.
func Removing(response *discoveryv3.DeltaDiscoveryResponse, names ...string) *discoveryv3.DeltaDiscoveryResponse {
	response.RemovedResources = append(response.RemovedResources, names...)
	return response
}

// Resource wraps a message for a delta response, or for the state of the world
// where the wrapper is itself packed into an Any.
func Resource(name, version string, m proto.Message) *discoveryv3.Resource {
	return &discoveryv3.Resource{Name: name, Version: version, Resource: Any(m)}
}

// Any packs a message; an *anypb.Any is returned as it is. The encoding is
// deterministic, so the same message gives the same bytes.
func Any(m proto.Message) *anypb.Any {
	if packed, ok := m.(*anypb.Any); ok {
		return packed
	}
	packed := new(anypb.Any)
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("adstest: pack %T: %v", m, err)) //nolint:forbidigo // a test's own message that cannot be encoded is a mistake in the test
	}
	return packed
}

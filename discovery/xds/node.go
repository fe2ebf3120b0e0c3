package xds

import (
	"fmt"
	"runtime/debug"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

const (
	userAgent = "inboard"
	module    = "github.com/inboardmesh/inboard"
)

// newNode returns the bootstrap's node as it is sent. It does not have the
// client feature envoy.lb.does_not_support_overprovisioning: the balancer
// supports it. The features of the protocol are added by the ADS client.
func newNode(n *bootstrap.Node, version string) (*corev3.Node, error) {
	node := &corev3.Node{
		Id:                   n.ID,
		Cluster:              n.Cluster,
		UserAgentName:        userAgent,
		UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: version},
	}
	if n.Locality != (balancer.Locality{}) {
		node.Locality = &corev3.Locality{Region: n.Locality.Region, Zone: n.Locality.Zone, SubZone: n.Locality.SubZone}
	}
	if n.Metadata != nil {
		metadata, err := structpb.NewStruct(n.Metadata)
		if err != nil {
			return nil, fmt.Errorf("node metadata: %w", err)
		}
		node.Metadata = metadata
	}
	return node, nil
}

// asksLikeIstio reports whether a node asks for what istiod has for gRPC without a
// proxy.
func asksLikeIstio(n *bootstrap.Node) bool { return n.Metadata["GENERATOR"] == "grpc" }

// moduleVersion returns the version of this module in the program, "devel" if
// it was not built from a release.
func moduleVersion() string {
	const devel = "devel"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return devel
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == module && m.Version != "" && m.Version != "(devel)" {
			return m.Version
		}
	}
	return devel
}

package relay

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxReason bounds the text of a refusal.
const maxReason = 4 << 10

// refusal is the text that a guest is to show. What holds a byte that protobuf
// does not take is cleaned, and a long one is cut.
func refusal(reason error) string {
	text := strings.ToValidUTF8("refused by the mesh: "+reason.Error(), "\uFFFD")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// A guest can be told of an error by nothing but a resource that it rejects. The
// following are rejected by every gRPC, since what they name does not exist, and
// the text of the rejection, which is also that of failed calls, has the reason.

// refusedClient is the Listener of a destination that cannot be used.
func refusedClient(name string, reason error) proto.Message {
	return &listenerv3.Listener{
		Name:        name,
		ApiListener: &listenerv3.ApiListener{ApiListener: &anypb.Any{TypeUrl: refusal(reason)}},
	}
}

// refusedServer is the Listener of an address that cannot be served.
func refusedServer(name, host string, port uint32, reason error) (proto.Message, error) {
	manager, err := serverManager(nil, nil)
	if err != nil {
		return nil, err
	}
	l := serverListener(name, host, port, manager)
	l.FilterChains[0].TransportSocket = &corev3.TransportSocket{Name: refusal(reason)}
	return l, nil
}

// refusedCluster is a cluster that cannot be used; its name is that which
// [refusedClusters] give it.
func refusedCluster(name string, reason error) proto.Message {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name},
		TransportSocket:      &corev3.TransportSocket{Name: refusal(reason)},
	}
}

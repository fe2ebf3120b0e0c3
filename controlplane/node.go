package controlplane

import (
	"errors"
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// nodeOf reads the node of a client. Its metadata has Istio's keys; without
// NAMESPACE the node ID has the namespace, as istiod reads it.
func nodeOf(node *core.Node) (istio.Node, error) {
	if node.GetId() == "" {
		return istio.Node{}, errors.New("the first request of a stream needs a node with an id")
	}
	metadata := node.GetMetadata().GetFields()
	who := istio.Node{
		ID: node.GetId(),
		Locality: istio.Locality{
			Region:  node.GetLocality().GetRegion(),
			Zone:    node.GetLocality().GetZone(),
			SubZone: node.GetLocality().GetSubZone(),
		},
	}
	who.NativeGRPC = isNativeGRPC(node)
	for _, field := range []struct {
		key string
		to  *string
	}{
		{"NAMESPACE", &who.Namespace},
		{"SERVICE_ACCOUNT", &who.ServiceAccount},
		{"CLUSTER_ID", &who.Cluster},
		{"NETWORK", &who.Network},
		{"NODE_NAME", &who.Host},
	} {
		text, err := stringOf(metadata[field.key])
		if err != nil {
			return istio.Node{}, fmt.Errorf("node metadata %s: %w", field.key, err)
		}
		*field.to = text
	}
	if who.Namespace == "" {
		who.Namespace = namespaceOf(who.ID)
	}
	labels := metadata["LABELS"]
	if labels == nil {
		return who, nil
	}
	if labels.GetStructValue() == nil {
		return istio.Node{}, errors.New("node metadata LABELS: want an object")
	}
	who.Labels = make(map[string]string)
	for key, value := range labels.GetStructValue().GetFields() {
		text, err := stringOf(value)
		if err != nil {
			return istio.Node{}, fmt.Errorf("node metadata LABELS[%q]: %w", key, err)
		}
		who.Labels[key] = text
	}
	return who, nil
}

// namespaceOf is the namespace in a node ID of Istio's form,
// "sidecar~IP~POD.NAMESPACE~DOMAIN", or "" for another ID.
func namespaceOf(id string) string {
	parts := strings.Split(id, "~")
	if len(parts) != 4 {
		return ""
	}
	dot := strings.LastIndexByte(parts[2], '.')
	if dot <= 0 {
		return ""
	}
	return parts[2][dot+1:]
}

func stringOf(value *structpb.Value) (string, error) {
	if value == nil {
		return "", nil
	}
	text, ok := value.GetKind().(*structpb.Value_StringValue)
	if !ok {
		return "", errors.New("want a string")
	}
	return text.StringValue, nil
}

// shortType is a type without its package: "Listener".
func shortType(typeURL string) string {
	return clip(typeURL[strings.LastIndexByte(typeURL, '.')+1:])
}

// clip bounds a text that a client chose, before it is logged or kept.
func clip(text string) string {
	const limit = 1 << 10
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "..."
}

// isNativeGRPC reports whether a node is gRPC's own xDS, of any language: "gRPC Go",
// "gRPC Node Pure JS". The generator in Istio's metadata says less, since others ask
// istiod for that one too.
func isNativeGRPC(node *core.Node) bool { return strings.HasPrefix(node.GetUserAgentName(), "gRPC ") }

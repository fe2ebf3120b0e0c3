package xds

import "github.com/inboardmesh/inboard/discovery/xds/internal/decode"

// Check says why a client would reject a resource: it is decoded as one that comes
// from a control plane. typeURL is that of a Listener, a RouteConfiguration, a Cluster
// or a ClusterLoadAssignment, such as
// "type.googleapis.com/envoy.config.cluster.v3.Cluster", and value the resource as it
// is sent. The error joins one for each problem, which begins with the path of the
// field. Nil is a resource that clients take.
//
// Only the process knows which policies of balancing the application brings
// ([Options]): one that a cluster names is taken for known.
//
// It is what the control plane has to be told to refuse what its clients would:
// controlplane.Config.Check and istio.Options.Check.
func Check(typeURL string, value []byte) error { return decode.Check(typeURL, value) }

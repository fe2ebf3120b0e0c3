package decode

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
)

// The type URLs of the resources that this package decodes.
const (
	ListenerURL = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteURL    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	ClusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// ListenerResource is a decoded Listener: exactly one field is set.
type ListenerResource struct {
	// Outbound is a Listener with an api_listener.
	Outbound *discovery.APIListener
	// Inbound is a Listener for connections to this process.
	Inbound *discovery.Inbound
}

// Listener decodes an envoy.config.listener.v3.Listener. The name is returned
// beside an error too, unless the bytes are not a Listener at all; the other
// functions of this package do the same. The error joins one error per problem.
func Listener(value []byte) (name string, l *ListenerResource, err error) {
	m := &listenerv3.Listener{}
	l, err = resource(value, m, m.GetName, (*decoder).listener)
	return m.GetName(), l, err
}

// RouteConfiguration decodes an envoy.config.route.v3.RouteConfiguration.
func RouteConfiguration(value []byte) (string, *discovery.RouteTable, error) {
	m := &routev3.RouteConfiguration{}
	table, err := resource(value, m, m.GetName, (*decoder).routeTable)
	return m.GetName(), table, err
}

// Cluster decodes an envoy.config.cluster.v3.Cluster for a process without
// policies of its own.
func Cluster(value []byte) (string, *discovery.Cluster, error) { return Clusters(nil)(value) }

// Clusters returns the decoder of clusters for a process with policies of its own,
// by their names.
func Clusters(policies map[string]balancer.Custom) func(value []byte) (string, *discovery.Cluster, error) {
	return func(value []byte) (string, *discovery.Cluster, error) {
		m := &clusterv3.Cluster{}
		cluster, err := resource(value, m, m.GetName, func(d *decoder, at path, m *clusterv3.Cluster) *discovery.Cluster {
			d.policies = policies
			return d.cluster(at, m)
		})
		return m.GetName(), cluster, err
	}
}

// Assignment decodes an envoy.config.endpoint.v3.ClusterLoadAssignment. A
// locality without a weight is left out (gRFC A27).
func Assignment(value []byte) (string, *discovery.Assignment, error) {
	rest, plain := takePlain(value)
	m := &endpointv3.ClusterLoadAssignment{}
	assignment, err := resource(rest, m, m.GetClusterName, func(d *decoder, at path, m *endpointv3.ClusterLoadAssignment) *discovery.Assignment {
		d.plain = plain
		return d.edsAssignment(at, m)
	})
	return m.GetClusterName(), assignment, err
}

// Check decodes a resource of any type, and returns what a process would refuse it
// for. Which policies of balancing a process brings is not known: any name that the
// configuration has for one is taken for known.
func Check(typeURL string, value []byte) error {
	var err error
	switch typeURL {
	case ListenerURL:
		_, _, err = Listener(value)
	case RouteURL:
		_, _, err = RouteConfiguration(value)
	case ClusterURL:
		m := &clusterv3.Cluster{}
		_, err = resource(value, m, m.GetName, func(d *decoder, at path, m *clusterv3.Cluster) *discovery.Cluster {
			d.policies = ownPolicies(m)
			return d.cluster(at, m)
		})
	case EndpointURL:
		_, _, err = Assignment(value)
	default:
		err = fmt.Errorf("resources of type %q are not known", typeURL)
	}
	return err
}

// decoder collects the problems of one resource.
type decoder struct {
	problems problems
	// policies are the application's own.
	policies map[string]balancer.Custom
	// plain are the endpoints that are not in the message of the resource.
	plain plainEndpoints
}

// resource takes value through the three gates.
func resource[M proto.Message, T any](value []byte, m M, name func() string, build func(*decoder, path, M) *T) (*T, error) {
	if err := proto.Unmarshal(value, m); err != nil {
		// What was read before the damage is not to be trusted, the name
		// included.
		proto.Reset(m)
		return nil, fmt.Errorf("not a valid %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	d := &decoder{}
	d.check(path{}, m)
	if name() == "" {
		d.problems.addf(path{}.field(nameField(m)), "must not be empty")
	}
	v := build(d, path{}, m)
	if err := d.problems.err(); err != nil {
		return nil, err
	}
	return v, nil
}

// nameField is the field that names the resource.
func nameField(m proto.Message) string {
	if _, ok := m.(*endpointv3.ClusterLoadAssignment); ok {
		return "cluster_name"
	}
	return "name"
}

// check takes a message through the first two gates.
func (d *decoder) check(at path, m proto.Message) {
	d.constraints(at, m)
	d.fields(at, m.ProtoReflect(), supportedFields())
}

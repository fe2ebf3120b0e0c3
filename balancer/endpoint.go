package balancer

// Health is an endpoint's health as the control plane says.
type Health uint8

// The states of Envoy's HealthStatus, in its order. Healthy and Unknown are
// used; Degraded is used when the others do not suffice; the rest are not.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
	Draining
	Timeout
	Degraded
)

// Locality is where an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// String returns "region/zone/subzone" without empty parts at the end.
func (l Locality) String() string {
	switch {
	case l.SubZone != "":
		return l.Region + "/" + l.Zone + "/" + l.SubZone
	case l.Zone != "":
		return l.Region + "/" + l.Zone
	}
	return l.Region
}

// covers reports whether other is within l, whose empty parts stand for any.
func (l Locality) covers(other Locality) bool {
	return (l.Region == "" || l.Region == other.Region) && (l.Zone == "" || l.Zone == other.Zone) &&
		(l.SubZone == "" || l.SubZone == other.SubZone)
}

// Endpoint is one address of a cluster, as configured. It is immutable.
type Endpoint struct {
	// Address is "host:port" with a literal IP address or, for an endpoint that is
	// known by its name only, that.
	Address string
	// Additional are further addresses of the same endpoint, such as one of the other
	// family, the preferred ones first. The endpoint is known by Address.
	Additional []string
	// Hostname is the endpoint's name, or "".
	Hostname string
	// Weight is relative to the other endpoints of the locality; 0 counts as 1.
	Weight uint32
	Health Health
	// Metadata is filter metadata with string values: namespace, key, value.
	Metadata map[string]map[string]string
	// Check is how the endpoint is checked if that is not as its cluster says; nil
	// is as the cluster says.
	Check *EndpointCheck
}

// EndpointCheck is what is particular about the active health checks of an
// endpoint.
type EndpointCheck struct {
	// Host and Port are where to ask; "" and 0 are as for calls.
	Host string
	Port uint32
	// Hostname is the host, or the authority, of the request; "" is the cluster's.
	Hostname string
	// Disabled leaves the endpoint unchecked: it counts as passing.
	Disabled bool
}

// fit reports whether the control plane says that the endpoint may be used.
func (e *Endpoint) fit() bool { return e.Health == Unknown || e.Health == Healthy }

// LocalityEndpoints is the endpoints of one locality at one priority.
type LocalityEndpoints struct {
	Locality Locality
	// Weight is the locality's share of its priority.
	Weight uint32
	// Priority 0 is used first.
	Priority  uint32
	Endpoints []Endpoint
}

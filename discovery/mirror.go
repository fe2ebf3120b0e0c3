package discovery

// Mirror sends a copy of a route's requests to a further cluster (Envoy,
// RequestMirrorPolicy). Nobody waits for its answer, which is dropped.
type Mirror struct {
	// Cluster is the cluster's name. It is "" if the request names it in Header.
	Cluster string
	// Header is the lower-case name of the request header that names the cluster;
	// "" is a fixed one. A request without it is not copied.
	Header string
	// PerMillion of the requests are copied.
	PerMillion uint32
	// Host replaces the authority of the copy; "" appends "-shadow" to the
	// request's, before its port, unless KeepHost is set.
	Host     string
	KeepHost bool
}

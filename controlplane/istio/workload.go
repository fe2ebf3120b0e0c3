package istio

// workloads are the endpoints of all services by where they are: a namespace
// and the port that they serve on.
type workloads map[workloadKey][]*endpoint

type workloadKey struct {
	namespace string
	port      uint32
}

func (w workloads) add(e *endpoint, port uint32) {
	key := workloadKey{e.namespace, port}
	w[key] = append(w[key], e)
}

// labelsOf are the labels that a workload at a port of a node may have: those that the
// node says; for one that says none, those of every endpoint of its service account at
// that port. unsure is true if they may be any: nothing is known of such an endpoint, or
// not its labels. What is left out of a bootstrap, or of the documents, must not open
// what a policy closes.
func (c *Config) labelsOf(node Node, port uint32) (all []map[string]string, unsure bool) {
	if len(node.Labels) > 0 {
		return []map[string]string{node.Labels}, false
	}
	for _, e := range c.workloads[workloadKey{node.Namespace, port}] {
		if e.serviceAccount != "" && node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount {
			continue
		}
		all, unsure = append(all, e.labels), unsure || e.unknown
	}
	return all, unsure || len(all) == 0
}

// inboundMode is the mode of a port of a node: the strictest of those that its labels
// may get it. A node without a namespace may be of any.
func (c *Config) inboundMode(node Node, port uint32) mtlsMode {
	if node.Namespace == "" {
		return c.peers.strictest(node.Labels, port)
	}
	labels, unsure := c.labelsOf(node, port)
	if unsure {
		return c.peers.strictestIn(node.Namespace, port)
	}
	mode := disabled
	for _, l := range labels {
		mode = stricter(mode, c.peers.mode(node.Namespace, l, port))
	}
	return mode
}

func stricter(a, b mtlsMode) mtlsMode {
	switch {
	case a == strict || b == strict:
		return strict
	case a == permissive || b == permissive:
		return permissive
	}
	return disabled
}

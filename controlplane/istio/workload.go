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

// inboundMode is the mode of a port of a node: by the labels that the node says
// it has. A node that says none may be any endpoint of its service account at
// that port, and is held to the strictest of their modes: what is left out of
// a bootstrap must not open a port that a policy closes. For the same reason a
// node without a namespace is held to the strictest mode of any namespace.
func (c *Config) inboundMode(node Node, port uint32) mtlsMode {
	if node.Namespace == "" {
		return c.peers.strictest(node.Labels, port)
	}
	mode := c.peers.mode(node.Namespace, node.Labels, port)
	if len(node.Labels) > 0 {
		return mode
	}
	for _, e := range c.workloads[workloadKey{node.Namespace, port}] {
		if e.serviceAccount != "" && node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount {
			continue
		}
		if e.unknown {
			// Any selector may be meant for it.
			mode = stricter(mode, c.peers.strictest(nil, port))
		}
		mode = stricter(mode, c.peers.mode(e.namespace, e.labels, port))
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

package route

import (
	"strings"

	"github.com/inboardmesh/inboard/discovery"
)

// Mirrors draws those of the decision's mirrors that get a copy of a request; nil
// without one. req sees the headers as they are sent.
func (d *Decision) Mirrors(req *Request) []DrawnMirror {
	forward := d.Route.Forward
	if forward == nil || len(forward.Mirrors) == 0 {
		return nil
	}
	var drawn []DrawnMirror
	for i := range forward.Mirrors {
		m := &forward.Mirrors[i]
		name := m.Cluster
		if m.Header != "" {
			name = req.firstValue(m.Header)
		}
		if name != "" && Draw(m.PerMillion) {
			drawn = append(drawn, DrawnMirror{Cluster: name, mirror: m})
		}
	}
	return drawn
}

// DrawnMirror is a mirror that gets a copy of a request.
type DrawnMirror struct {
	// Cluster is the name of its cluster.
	Cluster string
	mirror  *discovery.Mirror
}

// Host is the authority of a copy of a request to host: by default with "-shadow"
// before the port, so that whoever serves it can tell (Envoy, request mirroring).
// An IPv6 address, which cannot be told so, stays as it is.
func (m *DrawnMirror) Host(host string) string {
	switch {
	case m.mirror.Host != "":
		return m.mirror.Host
	case m.mirror.KeepHost, strings.HasPrefix(host, "["):
		return host
	}
	name := stripPort(host)
	return name + "-shadow" + host[len(name):]
}

package istio

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// registered are the endpoints of all services by where they are reached: which
// workload is at an address. Loopback addresses are everybody's.
type registered map[netip.AddrPort][]*endpoint

func (r registered) add(e *endpoint, port uint32) {
	ip, err := netip.ParseAddr(e.address)
	if err != nil || ip.IsLoopback() || ip.IsUnspecified() {
		return
	}
	key := netip.AddrPortFrom(ip.Unmap(), uint16(port))
	if !slices.Contains(r[key], e) {
		r[key] = append(r[key], e)
	}
}

// at are the endpoints at an address at which a node listens, or at that port of the
// address that it says it has, if it listens at all of its addresses.
func (r registered) at(node *Node, listens netip.AddrPort) []*endpoint {
	ip := listens.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = addressOf(node.ID)
	}
	if !ip.IsValid() {
		return nil
	}
	return r[netip.AddrPortFrom(ip, listens.Port())]
}

// addressOf is the address in a node ID of Istio's form, "sidecar~IP~POD.NAMESPACE~DOMAIN".
func addressOf(id string) netip.Addr {
	parts := strings.Split(id, "~")
	if len(parts) != 4 {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(parts[1])
	if err != nil {
		return netip.Addr{}
	}
	return ip.Unmap()
}

// listener is the node as it listens at an address, or why it does not get the
// listener there: the workload of which the documents know that it is there is another
// one. What the documents know of its own labels goes before what the node says: those
// of a Pod are all that it has, those of other endpoints some of them.
func (c *Config) listener(node Node, listens netip.AddrPort) (Node, error) {
	var own, other []*endpoint
	for _, e := range c.registered.at(&node, listens) {
		switch {
		case e.network != "" && node.Network != "" && e.network != node.Network:
			// The same address of another network.
		case e.serviceAccount == "" || node.Namespace == "":
			// Nobody knows whose it is, or who the node is.
		case e.namespace != node.Namespace || node.ServiceAccount != "" && e.serviceAccount != node.ServiceAccount:
			other = append(other, e)
		default:
			own = append(own, e)
		}
	}
	if len(own) == 0 && len(other) > 0 {
		e := other[0]
		return node, fmt.Errorf("the workload at %s has the service account %q of namespace %q (%s): the node is %q of %q",
			listens, e.serviceAccount, e.namespace, e.at.obj.source(), node.ServiceAccount, node.Namespace)
	}
	if len(own) == 0 {
		return node, nil
	}
	labels := maps.Clone(node.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	for i, e := range own {
		if e.pod != "" && !e.unknown {
			node.Labels = e.labels
			return node, nil
		}
		if i > 0 && !compatible(own[0].labels, e.labels) {
			node.Labels = nil // it may be any of them
			return node, nil
		}
		maps.Copy(labels, e.labels)
	}
	if len(node.Labels) > 0 || len(own) == 1 && own[0].at.obj.kind == kindWorkloadEntry {
		// Without labels of its own a node is held to the policies of all that it may
		// be; the labels of an entry in a ServiceEntry may be for subsets only.
		node.Labels = labels
	}
	return node, nil
}

// IsServerListener reports whether a name is that of a listener of servers, by their
// address.
func IsServerListener(name string) bool { return strings.HasPrefix(name, inboundPrefix) }

// Refusal is why a node does not get the listener of a name, nil if it does: the
// documents know another workload at its address. The error says which, and is for
// whoever runs the control plane, not for the node.
func (c *Config) Refusal(node Node, name string) error {
	address, ok := strings.CutPrefix(name, inboundPrefix)
	if !ok {
		return nil
	}
	listens, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil //nolint:nilerr // there is no such listener for anybody
	}
	_, err = c.listener(node, listens)
	return err
}

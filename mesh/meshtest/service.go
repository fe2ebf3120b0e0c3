package meshtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

// servicesFile is how problems call the configuration that a World writes.
const servicesFile = "meshtest-services.json"

// service is what instances of one name have in common.
type service struct {
	name, namespace string
	ports           []port
	instances       []*Instance // guarded by World.mu
}

func (s *service) host() string { return s.name + "." + s.namespace + serviceSuffix }

// port is a port of a ServiceEntry.
type port struct {
	Number   int    `json:"number"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

// String is "HTTP 80".
func (p port) String() string { return fmt.Sprintf("%s %d", p.Protocol, p.Number) }

// portsOf are the ports of an instance by number.
func portsOf(i *Instance) []port {
	ports := make([]port, 0, len(i.ports))
	for _, p := range i.ports {
		protocol := p.protocol()
		ports = append(ports, port{p.number, fmt.Sprintf("%s-%d", strings.ToLower(protocol), p.number), protocol})
	}
	slices.SortFunc(ports, func(a, b port) int { return cmp.Compare(a.Number, b.Number) })
	return ports
}

func (w *World) serviceLocked(name, namespace string) *service {
	for _, s := range w.services {
		if s.name == name && s.namespace == namespace {
			return s
		}
	}
	return nil
}

// register adds an instance to the configuration.
func (w *World) register(i *Instance) error {
	w.tb.Helper()
	w.mu.Lock()
	if len(i.service.instances) == 0 {
		w.services = append(w.services, i.service)
	}
	i.service.instances = append(i.service.instances, i)
	services, files := w.servicesLocked(), w.files
	w.mu.Unlock()
	return w.update(services, files)
}

// object is a document as Istio has it.
type object struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata,omitempty"`
	Spec       any            `json:"spec,omitempty"`
	Items      []object       `json:"items,omitempty"`
}

type serviceEntry struct {
	Hosts      []string   `json:"hosts"`
	Location   string     `json:"location"`
	Resolution string     `json:"resolution"`
	Ports      []port     `json:"ports"`
	Endpoints  []endpoint `json:"endpoints"`
}

type endpoint struct {
	Address        string            `json:"address"`
	Labels         map[string]string `json:"labels"`
	Locality       string            `json:"locality,omitempty"`
	ServiceAccount string            `json:"serviceAccount"`
}

// servicesLocked is a ServiceEntry, with its endpoints, for each service.
func (w *World) servicesLocked() istio.File {
	list := object{APIVersion: "v1", Kind: "List"}
	for _, s := range w.services {
		entry := serviceEntry{
			Hosts: []string{s.host()}, Location: "MESH_INTERNAL", Resolution: "STATIC", Ports: s.ports,
		}
		for _, i := range s.instances {
			entry.Endpoints = append(entry.Endpoints, endpoint{
				Address: i.ip, Labels: maps.Clone(i.labels), Locality: i.locality, ServiceAccount: s.name,
			})
		}
		list.Items = append(list.Items, object{
			APIVersion: "networking.istio.io/v1", Kind: "ServiceEntry",
			Metadata: map[string]any{"name": s.name, "namespace": s.namespace}, Spec: entry,
		})
	}
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		w.tb.Errorf("meshtest: %v", err) // strings and numbers always marshal
	}
	return istio.File{Name: servicesFile, Data: data}
}

// running returns the instances of a host that run, and whether it is known.
func (w *World) running(host string) (known bool, alive []*Instance) {
	name, namespace, err := splitName(host)
	if err != nil {
		return false, nil
	}
	w.mu.Lock()
	s := w.serviceLocked(name, namespace)
	var all []*Instance
	if s != nil {
		all = slices.Clone(s.instances)
	}
	w.mu.Unlock()
	for _, i := range all {
		if i.alive() {
			alive = append(alive, i)
		}
	}
	return s != nil, alive
}

// serviceNames lists the services for an error.
func (w *World) serviceNames() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.services) == 0 {
		return "none"
	}
	names := make([]string, 0, len(w.services))
	for _, s := range w.services {
		names = append(names, s.name+"."+s.namespace)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc"

	"github.com/inboardmesh/inboard/discovery/xds"
)

// ResourceState is what the mesh knows of one xDS resource.
type ResourceState = xds.ResourceState

// Resources is the state of every resource that is asked of the control plane,
// sorted by type and name: which version is in force, and what was rejected and
// why.
func (m *Mesh) Resources() []ResourceState { return m.source.Dump() }

// RegisterClientStatus adds the client status discovery service (CSDS) to a gRPC
// server, which tells what this process has of the control plane, as "grpcdebug xds"
// reads it. Secrets are left out. It authenticates nobody: register it with a server
// that only this host reaches, or that asks who calls.
func (m *Mesh) RegisterClientStatus(r grpc.ServiceRegistrar) { m.source.RegisterClientStatus(r) }

// ClientStatusJSON is what the service of [Mesh.RegisterClientStatus] answers, as
// protobuf's JSON: every xDS resource with its state, its version, its contents and
// what is wrong with it. Secrets are left out.
func (m *Mesh) ClientStatusJSON() ([]byte, error) { return m.source.ClientStatusJSON() }

// Ready says why this process had better not be sent requests yet, nil if nothing
// stands in the way: the mesh drains or is closed, an identity has no certificate, or the
// control plane has not answered about something that was asked of it, and there is
// no [LastKnownGood] version of it. It does not
// look at what the process calls. Safe for concurrent use, and cheap.
func (m *Mesh) Ready() error {
	if m.closing.Load() {
		return errors.New("mesh: closed")
	}
	if m.inbound.Draining() {
		return errors.New("mesh: draining")
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(m.identities)) {
		if _, err := m.identities[name].Identity(); err != nil {
			errs = append(errs, fmt.Errorf("mesh: identity %q: %w", name, err))
		}
	}
	for _, r := range m.source.Dump() {
		if r.State == "REQUESTED" && !r.LastKnownGood {
			errs = append(errs, fmt.Errorf("mesh: the control plane has not answered about the %s %q", r.Type, r.Name))
		}
	}
	return errors.Join(errs...)
}

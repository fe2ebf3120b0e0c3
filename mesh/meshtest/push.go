package meshtest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Push serves xDS resources in place of the services' and the test's YAML: what YAML
// has no words for, or what another control plane would send. They are Envoy's
// Listener, RouteConfiguration, Cluster and ClusterLoadAssignment, and the whole
// configuration, the same for every workload and instance, until the next Push, Apply,
// Try or Service. When Push returns they are in force.
//
// A workload asks for a Listener by what is called, such as "payment.shop:80"; an
// instance keeps its own listener while it is not pushed another one, until it is
// restarted. A resource that the control plane or a workload rejects fails the test;
// to test that it is rejected, use [World.TryPush].
func (w *World) Push(resources ...proto.Message) {
	w.tb.Helper()
	w.changing <- struct{}{}
	defer func() { <-w.changing }()
	if err := w.push(resources); err != nil {
		w.tb.Fatalf("meshtest: the resources are refused:\n%v", err)
	}
}

// TryPush is [World.Push] for resources that may be refused: the error says why, in
// place of a failed test. If the control plane refuses one, nothing changes.
func (w *World) TryPush(resources ...proto.Message) error {
	w.tb.Helper()
	w.changing <- struct{}{}
	defer func() { <-w.changing }()
	return w.try(func() error { return w.push(resources) })
}

func (w *World) push(resources []proto.Message) error {
	w.tb.Helper()
	if err := w.server.Push(resources...); err != nil {
		return err
	}
	w.settle(func(*member) bool { return true })
	return nil
}

// try makes a change, and returns with its error what the workloads reject of it: also
// what they have rejected before, which they are not sent again.
func (w *World) try(change func() error) error {
	w.tb.Helper()
	w.mu.Lock()
	w.trying, w.rejections = true, nil
	w.mu.Unlock()
	err := change()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trying = false
	all := append([]error{err}, w.rejections...)
	if err == nil && len(w.rejections) == 0 {
		all = append(all, w.standingLocked()...)
	}
	return errors.Join(all...)
}

// standingLocked returns what members go on rejecting, as an earlier change had it.
func (w *World) standingLocked() []error {
	var all []error
	for m := range w.members {
		for _, r := range m.mesh.Resources() {
			if r.RejectedVersion != "" && r.Err != nil {
				all = append(all, rejectedBy(m, rejection(r.Type, r.Name, r.Err)))
			}
		}
	}
	slices.SortFunc(all, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return all
}

// rejection is what is wrong with a resource.
func rejection(kind, name string, err error) error { return fmt.Errorf("%s %q: %w", kind, name, err) }

// rejectedBy names who rejects.
func rejectedBy(m *member, reason error) error {
	return fmt.Errorf("workload %q rejects it: %w", m.name, reason)
}

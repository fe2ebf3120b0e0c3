package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

// key names a resource.
type key struct{ url, name string }

// world is an xDS client without a network: the test says what is known of
// each resource, and events wait until they are pumped. Like the real client
// it tells a new watcher what is known. It is for one goroutine.
type world struct {
	values   map[key]any
	errs     map[key]error
	watchers map[key][]*worldWatch
	events   []func()

	publisher *publisher
}

type worldWatch struct {
	ads.Watcher
	cancelled bool
}

var _ watchClient = (*world)(nil)

func newWorld() *world {
	return &world{
		values:    make(map[key]any),
		errs:      make(map[key]error),
		watchers:  make(map[key][]*worldWatch),
		publisher: newPublisher(),
	}
}

func (w *world) Watch(typeURL, name string, watcher ads.Watcher) func() {
	k := key{typeURL, name}
	registered := &worldWatch{Watcher: watcher}
	w.watchers[k] = append(w.watchers[k], registered)
	w.tell(k, registered)
	return func() {
		registered.cancelled = true
		w.watchers[k] = slices.DeleteFunc(w.watchers[k], func(other *worldWatch) bool { return other == registered })
		if len(w.watchers[k]) == 0 {
			delete(w.watchers, k)
		}
	}
}

// tell queues what is known of a resource.
func (w *world) tell(k key, to *worldWatch) {
	value, held := w.values[k]
	err := w.errs[k]
	w.events = append(w.events, func() {
		if to.cancelled {
			return
		}
		if held {
			to.Changed(value)
		}
		switch {
		case err == nil:
		case held:
			to.AmbientError(err)
		default:
			to.ResourceError(err)
		}
	})
}

func (w *world) changed(k key) {
	for _, to := range w.watchers[k] {
		w.tell(k, to)
	}
}

// set makes a resource known and valid.
func (w *world) set(resource any) {
	k := keyOf(resource)
	w.values[k] = resource
	delete(w.errs, k)
	w.changed(k)
}

func keyOf(resource any) key {
	switch r := resource.(type) {
	case *decode.ListenerResource:
		if r.Inbound != nil {
			return key{decode.ListenerURL, r.Inbound.Name}
		}
		return key{decode.ListenerURL, r.Outbound.Name}
	case *discovery.RouteTable:
		return key{decode.RouteURL, r.Name}
	case *discovery.Cluster:
		return key{decode.ClusterURL, r.Name}
	case *discovery.Assignment:
		return key{decode.EndpointURL, r.Name}
	}
	panic(fmt.Sprintf("a resource of type %T", resource))
}

// fail sets the error of a resource; drop takes its value away as well.
func (w *world) fail(k key, err error, drop bool) {
	if drop {
		delete(w.values, k)
	}
	w.errs[k] = err
	w.changed(k)
}

// pump runs events and lets followers deliver, until there is nothing to do.
func (w *world) pump() {
	for {
		for len(w.events) > 0 {
			event := w.events[0]
			w.events = w.events[1:]
			event()
		}
		d, ok := w.publisher.take()
		if !ok {
			return
		}
		d.deliver()
	}
}

// watched returns the names of a type that somebody watches, sorted.
func (w *world) watched(url string) []string {
	var names []string
	for k := range w.watchers {
		if k.url == url {
			names = append(names, k.name)
		}
	}
	slices.Sort(names)
	return names
}

// notFound and invalid are errors as the real client has them.
func notFound(k key) error {
	return &ads.Error{Type: k.url, Name: k.name, Err: fmt.Errorf("%w: removed", discovery.ErrNotFound)}
}

func invalid(k key) error {
	return &ads.Error{Type: k.url, Name: k.name, Err: errors.New("rejected")}
}

func offline(k key) error {
	return &ads.Error{Type: k.url, Name: k.name, Err: fmt.Errorf("server away: %w", ads.ErrOffline)}
}

// recorder keeps what was published.
type recorder[T any] struct {
	updates []discovery.Update[T]
	latest  T // what is in force, whether it was taken or not
}

func (r *recorder[T]) notify(u discovery.Update[T]) {
	r.updates = append(r.updates, u)
	r.latest = u.Value
}

// take returns what was published since the last take.
func (r *recorder[T]) take() []discovery.Update[T] {
	taken := r.updates
	r.updates = nil
	return taken
}

// one returns the single update that was published since the last take.
func (r *recorder[T]) one(t *testing.T) discovery.Update[T] {
	t.Helper()
	updates := r.take()
	if len(updates) != 1 {
		t.Fatalf("%d updates were published, want 1: %+v", len(updates), updates)
	}
	return updates[0]
}

func (r *recorder[T]) none(t *testing.T) {
	t.Helper()
	if updates := r.take(); len(updates) > 0 {
		t.Fatalf("%d updates were published, want none: %+v", len(updates), updates)
	}
}

const destination = "payment:8080"

// watchTarget follows the destination in w.
func (w *world) watchTarget() (*recorder[*discovery.Target], func()) {
	r := &recorder[*discovery.Target]{}
	return r, newTarget(destination, destination, "", w, w.publisher, r.notify).stop
}

func apiListener(routeName string) *decode.ListenerResource {
	return &decode.ListenerResource{Outbound: &discovery.APIListener{Name: destination, RouteName: routeName}}
}

func inlineListener(table *discovery.RouteTable) *decode.ListenerResource {
	return &decode.ListenerResource{Outbound: &discovery.APIListener{Name: destination, Routes: table}}
}

// routeTable returns a table with a route per cluster.
func routeTable(name string, clusters ...string) *discovery.RouteTable {
	host := &discovery.VirtualHost{Name: "host", Domains: []string{"*"}}
	for _, c := range clusters {
		host.Routes = append(host.Routes, &discovery.Route{
			Forward: &discovery.Forward{Clusters: []discovery.WeightedCluster{{Name: c, Weight: 1}}},
		})
	}
	return &discovery.RouteTable{Name: name, VirtualHosts: []*discovery.VirtualHost{host}}
}

func edsCluster(name string) *discovery.Cluster {
	return &discovery.Cluster{Name: name, EDSName: name}
}

func staticCluster(name string) *discovery.Cluster {
	return &discovery.Cluster{Name: name, Static: &discovery.Assignment{Name: name}}
}

func assignment(name string) *discovery.Assignment { return &discovery.Assignment{Name: name} }

// clustersIn returns the names of a target's clusters, with "!" after those
// that are broken.
func clustersIn(target *discovery.Target) []string {
	var names []string
	for _, name := range slices.SortedFunc(maps.Keys(target.Clusters), cmp.Compare[string]) {
		if target.Clusters[name].Err != nil {
			name += "!"
		}
		names = append(names, name)
	}
	return names
}

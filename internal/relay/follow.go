package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// follow is one Listener that a guest asks for: a destination, or an address of
// this process, with everything that belongs to it.
type follow struct {
	relay *Relay
	name  string
	// server tells which of the two it is; host and port are those of the address.
	server bool
	host   string
	port   uint32
	stop   func()

	mu     sync.Mutex
	target discovery.Update[*discovery.Target]  // guarded by mu
	in     discovery.Update[*discovery.Inbound] // guarded by mu
	news   bool                                 // guarded by mu; there is something that was not written
	anew   bool                                 // guarded by mu; what was written is to be written again

	// What follows belongs to the goroutine that writes.
	last  *snapshot
	pairs map[string]*writtenCluster // of last
}

// resource is a resource as a guest gets it.
type resource struct {
	body *anypb.Any
	// refused tells that the guest has to reject it.
	refused bool
}

// snapshot is what was written of one state of a follow. It is immutable.
type snapshot struct {
	listener  resource
	clusters  map[string]resource
	endpoints map[string]resource
	notes     []observe.GuestNote
}

// writtenCluster is what was written of a cluster, to be used again while it is the
// same.
type writtenCluster struct {
	from          discovery.ClusterResult
	cluster       resource
	endpointsName string
	endpoints     resource
	notes         []observe.GuestNote
}

// newFollow follows what a Listener name stands for. changed is called when there
// is news, on a goroutine of the source.
func newFollow(r *Relay, name string, changed func()) *follow {
	f := &follow{relay: r, name: name, pairs: make(map[string]*writtenCluster)}
	of, server := r.destination(name)
	if !server {
		f.stop = r.options.Source.WatchTarget(of, func(u discovery.Update[*discovery.Target]) {
			f.mu.Lock()
			f.target, f.news = u, true
			f.mu.Unlock()
			changed()
		})
		return f
	}
	f.server = true
	var err error
	if f.host, f.port, err = splitAddress(of); err != nil {
		f.in, f.news, f.stop = discovery.Update[*discovery.Inbound]{Err: fmt.Errorf("%w (%w)", err, discovery.ErrUnusable)}, true, func() {}
		changed()
		return f
	}
	f.stop = r.options.Source.WatchInbound(listenerAddress(f.host, f.port), func(u discovery.Update[*discovery.Inbound]) {
		f.mu.Lock()
		f.in, f.news = u, true
		f.mu.Unlock()
		changed()
	})
	return f
}

// listenerAddress is the address by which the mesh knows a listener: all
// unspecified ones are "0.0.0.0".
func listenerAddress(host string, port uint32) string {
	ip := netip.MustParseAddr(host)
	if ip.IsUnspecified() {
		ip = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(ip, uint16(port)).String()
}

// end stops to follow.
func (f *follow) end() {
	f.stop()
	f.relay.setPlaintext(f, false)
}

// renew has everything written again.
func (f *follow) renew() {
	f.mu.Lock()
	f.news, f.anew = true, true
	f.mu.Unlock()
}

// snapshot returns what to serve now, nil if nothing is known yet.
func (f *follow) snapshot() *snapshot {
	f.mu.Lock()
	target, in, news := f.target, f.in, f.news
	if f.anew {
		clear(f.pairs)
	}
	f.news, f.anew = false, false
	f.mu.Unlock()
	if !news {
		return f.last
	}
	var next *snapshot
	if f.server {
		next = f.writeServer(in)
	} else {
		next = f.writeClient(target)
	}
	if next == nil {
		return f.last
	}
	f.log(next.notes)
	f.last = next
	return next
}

// log tells what is new among the notes.
func (f *follow) log(notes []observe.GuestNote) {
	var before []observe.GuestNote
	if f.last != nil {
		before = f.last.notes
	}
	for _, n := range notes {
		switch {
		case slices.Contains(before, n):
		case n.Refused:
			f.relay.options.Logger.Warn("native gRPC is refused a part of its configuration", "listener", f.name, "where", n.Where, "reason", n.What)
		default:
			f.relay.options.Logger.Debug("native gRPC does without a part of its configuration", "listener", f.name, "where", n.Where, "what", n.What)
		}
	}
}

// trustDomain is that of a certificate provider instance.
func (f *follow) trustDomain(instance string) (string, error) {
	source, err := f.relay.options.Identity(instance)
	if err != nil {
		return "", err
	}
	identity, err := source.Identity()
	if err != nil {
		return "", err
	}
	return identity.ID.TrustDomain(), nil
}

// writeClient writes a destination, nil if it is still on its way.
func (f *follow) writeClient(u discovery.Update[*discovery.Target]) *snapshot {
	if u.Value == nil {
		return f.withoutValue(u.Err, func(err error) (proto.Message, error) { return refusedClient(f.name, err), nil })
	}
	s := &snapshot{clusters: make(map[string]resource), endpoints: make(map[string]resource)}
	refused := f.writeClusters(u.Value, s)
	e := newEncoder(f.trustDomain)
	listener, err := e.clientListener(f.name, u.Value, refused)
	if err != nil {
		e.refuse("listener", err)
		listener = refusedClient(f.name, err)
	}
	s.listener = written(listener, err != nil)
	s.notes = append(e.notes(), s.notes...)
	return s
}

// refusedClusters are those that a guest cannot use.
type refusedClusters map[string]bool

// name is what a guest knows a cluster by. One that is refused has another name:
// grpc-go (v1.85.0) goes on to call the endpoints that it has of a cluster which is
// in error, so that it must be another cluster.
func (r refusedClusters) name(cluster string) string {
	if r[cluster] {
		return plainName(cluster) + "|refused"
	}
	return plainName(cluster)
}

// plainName is a name without an authority: grpc-go would write one that has an
// authority in a form of its own when it asks for it, and ask for its endpoints by such a
// name, too.
func plainName(cluster string) string { return strings.TrimPrefix(cluster, scheme) }

// writeClusters writes the clusters of a target, those first of which others
// consist.
func (f *follow) writeClusters(t *discovery.Target, s *snapshot) refusedClusters {
	pairs := make(map[string]*writtenCluster, len(t.Clusters))
	refused := make(refusedClusters)
	write := func(name string, result discovery.ClusterResult, again bool) {
		w := f.pairs[name]
		if again || w == nil || !sameCluster(w.from, result) {
			w = f.writeCluster(name, result, refused)
		}
		pairs[name] = w
		refused[name] = w.cluster.refused
		s.clusters[refused.name(name)] = w.cluster
		if w.endpointsName != "" {
			s.endpoints[w.endpointsName] = w.endpoints
		}
		s.notes = append(s.notes, w.notes...)
	}
	isAggregate := func(r discovery.ClusterResult) bool { return r.Err == nil && len(r.Cluster.Aggregate) > 0 }
	for name, result := range t.Clusters {
		if !isAggregate(result) {
			write(name, result, false)
		}
	}
	begun := make(map[string]bool)
	var aggregate func(name string)
	aggregate = func(name string) {
		result, ok := t.Clusters[name]
		if !ok || begun[name] || !isAggregate(result) {
			return
		}
		begun[name] = true
		for _, part := range result.Cluster.Aggregate {
			aggregate(part)
		}
		write(name, result, true) // whether a part of it is refused is not in the result
	}
	for name := range t.Clusters {
		aggregate(name)
	}
	f.pairs = pairs
	slices.SortFunc(s.notes, func(a, b observe.GuestNote) int { return strings.Compare(a.String(), b.String()) })
	return refused
}

func sameCluster(a, b discovery.ClusterResult) bool {
	return a.Cluster == b.Cluster && a.Endpoints == b.Endpoints && fmt.Sprint(a.Err) == fmt.Sprint(b.Err)
}

func (f *follow) writeCluster(name string, result discovery.ClusterResult, refused refusedClusters) *writtenCluster {
	e := newEncoder(f.trustDomain)
	w := &writtenCluster{from: result}
	pair, err := clusterPair{}, result.Err
	if err == nil {
		pair, err = e.clusterPair(name, result, refused)
	}
	if err != nil {
		e.refuse(fmt.Sprintf("cluster %q", name), err)
		w.cluster = written(refusedCluster(refusedClusters{name: true}.name(name), err), true)
	} else {
		w.cluster = written(pair.cluster, false)
		if w.endpointsName = pair.endpointsName; w.endpointsName != "" {
			w.endpoints = written(pair.endpoints, false)
		}
	}
	w.notes = e.notes()
	return w
}

// writeServer writes an address of this process, nil if it is still on its way.
func (f *follow) writeServer(u discovery.Update[*discovery.Inbound]) *snapshot {
	refused := func(err error) (proto.Message, error) { return refusedServer(f.name, f.host, f.port, err) }
	if u.Value == nil {
		f.relay.setPlaintext(f, false)
		return f.withoutValue(u.Err, refused)
	}
	e := newEncoder(f.trustDomain)
	out, err := e.serverListener(f.name, f.host, f.port, u.Value)
	f.relay.setPlaintext(f, err == nil && out.plaintext)
	s := &snapshot{}
	if err != nil {
		e.refuse("listener", err)
		if listener, failed := refused(err); failed == nil {
			s.listener = written(listener, true)
		}
	} else {
		s.listener = written(out.listener, false)
	}
	s.notes = e.notes()
	return s
}

// withoutValue is the snapshot of what cannot be used, nil if it may still come.
func (f *follow) withoutValue(reason error, refused func(error) (proto.Message, error)) *snapshot {
	if !errors.Is(reason, discovery.ErrUnusable) && !errors.Is(reason, discovery.ErrNotFound) {
		return nil
	}
	s := &snapshot{notes: []observe.GuestNote{{Where: "listener", What: reason.Error(), Refused: true}}}
	if listener, err := refused(reason); err == nil {
		s.listener = written(listener, true)
	}
	return s
}

// written is a message as a resource. One that cannot be encoded is none.
func written(m proto.Message, refused bool) resource {
	body, err := pack(m)
	if err != nil {
		return resource{}
	}
	return resource{body: body, refused: refused}
}

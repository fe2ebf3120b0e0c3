package xds

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/bootstrap"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/observe"
)

// Options are what a [Source] reports to. The zero value reports nothing.
type Options struct {
	// Hooks is told of the stream and of resources.
	Hooks observe.Hooks
	// Logger is told of what goes wrong; nil discards it.
	Logger *slog.Logger
	// LocalCluster is the name of the cluster of which this process is an endpoint:
	// it comes with every target, if the control plane has it, for zone aware
	// routing. "" is none.
	LocalCluster string
	// Balancers are policies of the application, by the names that clusters ask
	// for them by.
	Balancers map[string]balancer.Custom
	// Loads tells of the load of clusters, for the servers that ask (LRS); nil is
	// that they are not told.
	Loads Loads
	// LastKnownGood is where configuration is kept for a start without a control
	// plane. The zero value keeps none.
	LastKnownGood LastKnownGood
}

// Source follows a control plane over one stream, or over one per server if the
// bootstrap has several (gRFC A47, A71). Create it with [NewSource]
// and end it with [Source.Close]. It is safe for concurrent use.
type Source struct {
	config    *bootstrap.Config
	client    *ads.Client
	watches   watchClient // client, or keeper
	keeper    *keeper     // nil if nothing is kept
	publisher *publisher
	channels  channels
	lingering lingering
	wg        sync.WaitGroup
	close     func() error
	local     string // Options.LocalCluster
}

var _ discovery.Source = (*Source)(nil)

// NewSource returns a source for a bootstrap, which it keeps. It connects when
// the first watch appears, so a control plane that is away is no error here.
//
// Of several servers the first is used. While it cannot be reached and something
// is missing, the next one is asked for everything, until the first one is back
// (gRFC A71).
func NewSource(config *bootstrap.Config, options Options) (*Source, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	version := moduleVersion()
	node, err := newNode(&config.Node, version)
	if err != nil {
		return nil, err
	}
	s := &Source{config: config, local: options.LocalCluster, publisher: newPublisher(), channels: make(channels)}
	if options.Logger != nil {
		s.publisher.logger = options.Logger
	}
	s.publisher.strict = strict(config)
	servers := s.channels.servers(config.Servers, version, asksLikeIstio(&config.Node))
	authorities := make(map[string][]ads.ServerConfig, len(config.Authorities))
	for name, authority := range config.Authorities {
		authorities[name] = s.channels.servers(authority.Servers, version, false)
	}
	clusters, hooks := decode.Clusters(options.Balancers), options.Hooks
	var reporter *loadReporter
	var moved func()
	if options.Loads != nil {
		reporter = newLoadReporter(options.Loads, options.Logger)
		clusters, hooks = reporter.watching(clusters), reporter.note(hooks)
		moved = reporter.poke
	}
	types := []ads.Type{
		{URL: decode.ListenerURL, Name: "Listener", FullStateInSotW: true, Decode: decoder(decode.Listener)},
		{URL: decode.RouteURL, Name: "RouteConfiguration", Decode: decoder(decode.RouteConfiguration)},
		{URL: decode.ClusterURL, Name: "Cluster", FullStateInSotW: true, Decode: decoder(clusters)},
		{URL: decode.EndpointURL, Name: "ClusterLoadAssignment", Decode: decoder(decode.Assignment)},
		{URL: decode.SecretURL, Name: "Secret", Decode: decoder(decode.Secret)},
	}
	if options.LastKnownGood.Dir != "" {
		if s.keeper, err = newKeeper(config, &options, types); err != nil {
			return nil, err
		}
		types, hooks = s.keeper.remembering(types), s.keeper.note(hooks)
	}
	s.client, err = ads.NewClient(ads.Options{
		Servers:     servers,
		Authorities: authorities,
		Types:       types,
		Node:        node,
		Hooks:       hooks,
		Moved:       moved,
		Logger:      options.Logger,
	})
	if err != nil {
		s.StopKeeping()
		return nil, err
	}
	s.watches = s.client
	if s.keeper != nil {
		s.keeper.client = s.client
		s.watches = s.keeper
	}
	s.wg.Go(s.publisher.run) // ends with Close
	stopReports := func() {}
	if reporter != nil {
		reporter.client = s.client
		var ctx context.Context
		ctx, stopReports = context.WithCancel(context.Background())
		s.wg.Go(func() { reporter.run(ctx) }) // ends with Close
	}
	s.close = sync.OnceValue(func() error {
		s.StopKeeping()
		s.lingering.close()
		stopReports()
		err := s.client.Close()
		s.publisher.close()
		s.wg.Wait()
		s.channels.free()
		return err
	})
	return s, nil
}

// decoder adapts a function of package decode.
func decoder[V any](f func([]byte) (string, *V, error)) func([]byte) (string, any, error) {
	return func(value []byte) (string, any, error) {
		name, resource, err := f(value)
		if err != nil {
			return name, nil, err
		}
		return name, resource, nil
	}
}

// WatchTarget follows a destination, "host:port", as [discovery.Source] says; or
// "//AUTHORITY/host:port", one of an authority of the bootstrap (gRFC A47).
//
// An update without a value has an error that wraps [discovery.ErrNotFound]
// only if the control plane has no Listener for the destination. A resource
// that the Listener needs and that does not exist makes the destination
// unusable, not unknown. An authority that the bootstrap does not have makes it
// unknown.
//
// A call of notify that has begun when stop is called may still be running when
// stop has returned. After Close a watch is told nothing. What was in use when stop is
// called is followed for five minutes longer, by nobody, for who watches it again: the
// control plane may have gone away by then. That goes for the last 64.
func (s *Source) WatchTarget(name string, notify func(discovery.Update[*discovery.Target])) (stop func()) {
	listener, err := s.config.ListenerName(name)
	if err != nil {
		// Nothing will mend it: no call has to wait.
		err = fmt.Errorf("%w: %w", discovery.ErrNotFound, err)
		t := &target{name: name, publisher: s.publisher, notify: notify, listener: &resource[discovery.APIListener]{err: err}}
		s.publisher.add(t)
		return t.stop
	}
	t := newTarget(name, listener, s.local, s.watches, s.publisher, notify)
	return s.leaving("destination "+name, t.leave, t.stop)
}

// leaving returns what ends a watch. Its follower stays for a while if leave, which
// keeps it from telling anything more, reports that it has something.
func (s *Source) leaving(name string, leave func() bool, stop func()) func() {
	return sync.OnceFunc(func() {
		if leave() {
			s.lingering.add(name, stop)
		} else {
			stop()
		}
	})
}

// WatchInbound follows the listener of this process at an address,
// "0.0.0.0:8080", as [discovery.Source] says. A bootstrap without
// server_listener_resource_name_template is told as an error, and so is a
// Listener for another address. stop is as in [Source.WatchTarget].
func (s *Source) WatchInbound(address string, notify func(discovery.Update[*discovery.Inbound])) (stop func()) {
	name, err := s.config.ServerListenerName(address)
	if err != nil {
		in := &inbound{publisher: s.publisher, notify: notify, listener: &resource[discovery.Inbound]{err: err}}
		s.publisher.add(in)
		return in.stop
	}
	in := newInbound(address, name, s.watches, s.publisher, notify)
	return s.leaving("address "+address, in.leave, in.stop)
}

// Close ends every watch and the connections, writes what is kept on disk, and waits for
// the goroutines, and for a notify or hook that is being called. It waits for no server.
// It must not be called inside either. Later calls wait as well.
func (s *Source) Close() error { return s.close() }

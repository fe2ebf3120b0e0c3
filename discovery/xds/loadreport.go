package xds

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	loadstatsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
	"github.com/inboardmesh/inboard/observe"
)

// sendAllClusters is the client feature of those who can be asked for the load of all
// clusters.
const sendAllClusters = "envoy.lrs.supports_send_all_clusters"

// leastLoadInterval is the shortest interval between reports, whatever a server asks
// for.
const leastLoadInterval = time.Second

// lastReportTimeout is how long a server has to take the last report.
const lastReportTimeout = time.Second

// Loads returns what happened since it was last called to the calls of the clusters
// that wanted wants, see upstream.Manager.Loads.
type Loads func(wanted func(cluster string) bool) []discovery.ClusterLoad

// loadReporter keeps a stream to each server that wants to know of loads (LRS, gRFC
// A27): the ones that clusters with lrs_server came from. The streams are on the
// connections that there are.
type loadReporter struct {
	client *ads.Client
	loads  Loads
	logger *slog.Logger
	// wanted is set once a cluster has come whose load is wanted. Until then
	// nothing is done.
	wanted atomic.Bool
	// changed tells that a cluster came or changed. It holds one token.
	changed chan struct{}
}

func newLoadReporter(loads Loads, logger *slog.Logger) *loadReporter {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &loadReporter{loads: loads, logger: logger, changed: make(chan struct{}, 1)}
}

// watching returns a decoder of clusters that notes whose load is wanted.
func (r *loadReporter) watching(decode func([]byte) (string, *discovery.Cluster, error)) func([]byte) (string, *discovery.Cluster, error) {
	return func(value []byte) (string, *discovery.Cluster, error) {
		name, cluster, err := decode(value)
		if err == nil && cluster.LoadReports != nil {
			r.wanted.Store(true)
		}
		return name, cluster, err
	}
}

// note returns the hooks of the client, from which it hears of clusters.
func (r *loadReporter) note(hooks observe.Hooks) observe.Hooks {
	accepted := hooks.ResourceAccepted
	hooks.ResourceAccepted = func(e observe.ResourceEvent) {
		if e.Type == "Cluster" && r.wanted.Load() {
			r.poke()
		}
		if accepted != nil {
			accepted(e)
		}
	}
	return hooks
}

// poke makes run look at the clusters.
func (r *loadReporter) poke() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// servers returns the clusters whose load is wanted by the servers that they came from.
func (r *loadReporter) servers() map[string]map[string]bool {
	return r.client.Sources(decode.ClusterURL, func(resource any) bool {
		if kept, ok := resource.(*decoded); ok {
			resource = kept.value
		}
		cluster, ok := resource.(*discovery.Cluster)
		return ok && cluster.LoadReports != nil
	})
}

// run starts and ends the streams. It ends with ctx.
func (r *loadReporter) run(ctx context.Context) {
	streams := make(map[string]func()) // what ends each, and waits for it
	end := func(id string) {
		streams[id]()
		delete(streams, id)
	}
	defer func() {
		for id := range streams {
			end(id)
		}
	}()
	for {
		select {
		case <-r.changed:
		case <-ctx.Done():
			return
		}
		servers := r.servers()
		for id := range streams {
			if servers[id] == nil {
				end(id)
			}
		}
		for id := range servers {
			if _, ok := streams[id]; !ok {
				streams[id] = r.begin(ctx, id)
			}
		}
	}
}

// begin reports to a server until end is called, which waits for a last report.
func (r *loadReporter) begin(ctx context.Context, server string) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	finish := make(chan struct{})
	reporting.Go(func() { // ends with ctx
		defer cancel()
		r.report(ctx, server, finish)
	})
	return func() {
		close(finish)
		patient := time.AfterFunc(lastReportTimeout, cancel)
		defer patient.Stop()
		reporting.Wait()
	}
}

// told is what a server was told.
type told struct {
	// since is when the last report that was sent ended.
	since time.Time
	// clusters are those whose load the server wanted, until all of it was told: one
	// that is gone has a last time to report of.
	clusters map[string]bool
}

// report keeps a stream to one server up, with a back-off of its own. It ends with
// ctx, or when finish is closed, after a last report.
func (r *loadReporter) report(ctx context.Context, server string, finish <-chan struct{}) {
	var pace ads.Pace
	so := &told{since: time.Now(), clusters: make(map[string]bool)}
	for pace.Wait(ctx) {
		answered, err := r.stream(ctx, server, so, finish)
		select {
		case <-finish:
			return
		case <-ctx.Done():
			return
		default:
		}
		pace.Ended(answered)
		r.logger.Debug("load report stream broke", "error", err)
		r.poke() // the clusters may come from another server now (gRFC A71)
	}
}

var errNoConnection = errors.New("there is no connection to the xDS server")

// stream reports until the stream breaks, or finish is closed. What was sent is never
// sent again.
func (r *loadReporter) stream(ctx context.Context, server string, so *told, finish <-chan struct{}) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn := r.client.Conn(server)
	if conn == nil {
		return false, errNoConnection
	}
	stream, err := loadstatsv3.NewLoadReportingServiceClient(conn).StreamLoadStats(ctx)
	if err != nil {
		return false, err
	}
	node := proto.CloneOf(r.client.Node())
	node.ClientFeatures = append(node.ClientFeatures, sendAllClusters)
	if err := stream.Send(&loadstatsv3.LoadStatsRequest{Node: node}); err != nil {
		return false, recvError(stream, err)
	}
	asked := make(chan *loadstatsv3.LoadStatsResponse)
	ended := make(chan error, 1)
	var receiving sync.WaitGroup
	receiving.Go(func() { // ends with the stream
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case asked <- m:
			case <-ctx.Done():
				return
			}
		}
	})
	defer receiving.Wait()
	defer cancel() // before the wait
	var want *loadstatsv3.LoadStatsResponse
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case want = <-asked:
			answered = true
			tick.Reset(max(want.GetLoadReportingInterval().AsDuration(), leastLoadInterval))
		case <-tick.C:
			if want == nil {
				continue
			}
			if err := stream.Send(r.message(server, want, so)); err != nil {
				return answered, err
			}
		case <-finish:
			if want == nil {
				return answered, nil
			}
			if last := r.message(server, want, so); len(last.GetClusterStats()) > 0 {
				if err := stream.Send(last); err != nil {
					return answered, err
				}
			}
			if err := stream.CloseSend(); err != nil {
				return answered, err
			}
			select { // to cancel it now could take the report back
			case err = <-ended:
			case <-ctx.Done():
			}
			return answered, err
		case err := <-ended:
			return answered, err
		}
	}
}

// recvError is why a stream broke, which Send does not tell.
func recvError(stream grpc.ClientStream, sent error) error {
	if err := stream.RecvMsg(new(loadstatsv3.LoadStatsResponse)); err != nil {
		return err
	}
	return sent
}

// know notes the clusters whose load a server wants now, and returns them. What came
// from another server since is that one's.
func (r *loadReporter) know(server string, so *told) map[string]bool {
	ours := make(map[string]bool)
	for id, clusters := range r.servers() {
		for name := range clusters {
			if id == server {
				ours[name], so.clusters[name] = true, true
			} else {
				delete(so.clusters, name)
			}
		}
	}
	return ours
}

// message is the report on the time since the last one.
func (r *loadReporter) message(server string, want *loadstatsv3.LoadStatsResponse, so *told) *loadstatsv3.LoadStatsRequest {
	ours := r.know(server, so)
	if len(ours) == 0 {
		r.poke() // nobody asks any more: this is the last one
	}
	named := make(map[string]bool, len(want.GetClusters()))
	for _, name := range want.GetClusters() {
		named[name] = true
	}
	loads := r.loads(func(cluster string) bool {
		return so.clusters[cluster] && (want.GetSendAllClusters() || named[cluster])
	})
	now := time.Now()
	took := durationpb.New(now.Sub(so.since))
	so.since = now
	so.clusters = maps.Clone(ours)
	for i := range loads {
		so.clusters[loads[i].Cluster] = true // one that is gone may have calls that run
	}
	request := new(loadstatsv3.LoadStatsRequest)
	for i := range loads {
		stats := clusterStats(&loads[i], want.GetReportEndpointGranularity())
		stats.LoadReportInterval = took
		request.ClusterStats = append(request.ClusterStats, stats)
	}
	return request
}

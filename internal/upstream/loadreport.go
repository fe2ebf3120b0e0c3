package upstream

import (
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/internal/orca"
)

// TakesReports reports whether anybody wants to know what the endpoint says of its
// load: the balancer, or the control plane.
func (e *Endpoint) TakesReports() bool {
	config := e.cluster.Config()
	return config != nil && (config.Balancer.Policy == balancer.ClientWeighted ||
		config.LoadReports != nil && len(config.LoadReports.Metrics) > 0)
}

// FindReport looks for the endpoint's load report in the headers or trailers of a
// response, see [orca.Find]. One that cannot be read counts as none: the weight
// that it would have changed expires in its time.
func (e *Endpoint) FindReport(get func(name string) string, raw bool) {
	if !e.TakesReports() {
		return
	}
	if report, found, err := orca.Find(get, raw); found && err == nil {
		e.noteMetrics(&report)
		// One that reports on a stream of its own is weighed by that.
		if config := e.cluster.Config(); config.Balancer.Policy == balancer.ClientWeighted && !config.Balancer.ClientWeighted.OutOfBand {
			e.ReportLoad(&report)
		}
	}
}

// ReportLoad takes over what the endpoint says of its load.
func (e *Endpoint) ReportLoad(report *balancer.LoadReport) { e.host.ReportLoad(time.Now(), report) }

// reweigher lets a cluster compute its weights by load reports from time to time.
// There is one timer, and it runs only while the cluster balances by them.
type reweigher struct {
	cluster *Cluster

	mu     sync.Mutex
	period time.Duration // guarded by mu; 0 while it does not run
	timer  *time.Timer   // guarded by mu; nil before the first period
}

// follow starts, changes or stops the timer, as the cluster balances.
func (r *reweigher) follow(config *balancer.Config) {
	period := time.Duration(0)
	if config.Policy == balancer.ClientWeighted {
		period = config.ClientWeighted.Period()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if period == r.period {
		return
	}
	r.period = period
	switch {
	case period == 0:
		r.timer.Stop()
	case r.timer == nil:
		r.timer = time.AfterFunc(period, r.tick)
	default:
		r.timer.Reset(period)
	}
}

func (r *reweigher) stop() { r.follow(&balancer.Config{}) }

// tick works on a goroutine that the manager waits for.
func (r *reweigher) tick() {
	r.cluster.manager.background(func() {
		r.cluster.set.Reweigh()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.period > 0 {
			r.timer.Reset(r.period)
		}
	})
}

package upstream

import (
	"sync"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/outcome"
)

// Report tells how an attempt on the endpoint ended, whatever its protocol, for
// outlier detection.
func (e *Endpoint) Report(o *outcome.Outcome) {
	if change, ok := e.host.Report(o); ok {
		e.cluster.ejectionChanged(change)
	}
}

// ejectionsChanged reports what outlier detection did.
func (c *Cluster) ejectionsChanged(changes []balancer.Ejection) {
	for _, change := range changes {
		c.ejectionChanged(change)
	}
}

func (c *Cluster) ejectionChanged(change balancer.Ejection) {
	hooks := c.manager.options.Hooks
	event := observe.EjectionEvent{
		Cluster: c.name, Endpoint: change.Host.Endpoint().Address, Reason: change.Reason.String(),
	}
	switch {
	case !change.Returned && hooks.EndpointEjected != nil:
		hooks.EndpointEjected(event)
	case change.Returned && hooks.EndpointReturned != nil:
		hooks.EndpointReturned(event)
	}
}

// setOutlier applies a policy of outlier detection; nil ends it. Hosts keep their
// ejections from one policy to the next. It returns the ejections that ended.
func (c *Cluster) setOutlier(config *balancer.OutlierConfig) []balancer.Ejection {
	interval := time.Duration(0)
	if config.Ejects() {
		interval = config.Interval
	}
	returned := c.set.SetOutlier(config)
	c.sweeper.set(interval)
	return returned
}

// ejectedAmong returns the ends of the ejections of hosts that have left the
// cluster.
func ejectedAmong(removed []*balancer.Host) []balancer.Ejection {
	var ended []balancer.Ejection
	for _, h := range removed {
		if reason, ok := h.Ejected(); ok {
			ended = append(ended, balancer.Ejection{Host: h, Returned: true, Reason: reason})
		}
	}
	return ended
}

// sweeper sweeps a cluster's set at the interval of its outlier detection. There is
// one timer, and it runs only while there is a policy.
type sweeper struct {
	cluster *Cluster

	mu       sync.Mutex
	interval time.Duration // guarded by mu; 0 while there is no policy
	began    time.Time     // guarded by mu; the interval under way
	timer    *time.Timer   // guarded by mu; nil before the first policy
}

// set starts, changes or, with 0, stops the timer. An interval under way ends when
// it would have with the new length (gRFC A50).
func (s *sweeper) set(interval time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if interval == s.interval {
		return
	}
	running := s.interval > 0
	s.interval = interval
	switch {
	case interval == 0:
		s.timer.Stop()
	case s.timer == nil:
		s.began = time.Now()
		s.timer = time.AfterFunc(interval, s.tick)
	case running:
		s.timer.Reset(max(0, interval-time.Since(s.began)))
	default:
		s.began = time.Now()
		s.timer.Reset(interval)
	}
}

// tick sweeps on a goroutine that the manager waits for. After its Close there is
// nothing to do.
func (s *sweeper) tick() { s.cluster.manager.background(s.sweep) }

func (s *sweeper) sweep() {
	s.cluster.ejectionsChanged(s.cluster.set.Sweep())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interval > 0 {
		s.began = time.Now()
		s.timer.Reset(s.interval)
	}
}

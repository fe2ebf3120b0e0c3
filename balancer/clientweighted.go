package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// ClientWeightedConfig is for [ClientWeighted], which is weighted round robin by
// what the hosts report of their load (gRFC A58). The zero value has the defaults
// of the gRFC but for the penalty, which the decoder fills in.
type ClientWeightedConfig struct {
	// OutOfBand asks the hosts for reports on a stream instead of with each
	// response, every ReportPeriod. It is for gRPC; other responses carry
	// their reports whatever it says.
	OutOfBand    bool
	ReportPeriod time.Duration // 0 is 10 s
	// Blackout is how long a host must have reported before its weight is used;
	// 0 is 10 s, and less than 0 is none.
	Blackout time.Duration
	// Expiration is after how long without a report a weight is forgotten; 0 is
	// 3 min, and less than 0 is never.
	Expiration time.Duration
	// UpdatePeriod is how often weights are computed: [Set.Reweigh] is to be
	// called as often. 0 is 1 s; it is at least 100 ms.
	UpdatePeriod time.Duration
	// ErrorPenalty is what the rate of errors counts beside the utilization.
	// Its default of 1 is filled in by the decoder.
	ErrorPenalty float64
	// Metrics are names such as "named_metrics.foo" or "cpu_utilization" whose
	// largest value is the utilization of reports that have no application
	// utilization (gRFC A114); without any of them it is that of the CPU.
	Metrics []string
}

// Defaults of gRFC A58.
const (
	defaultReportPeriod = 10 * time.Second
	defaultBlackout     = 10 * time.Second
	defaultExpiration   = 3 * time.Minute
	defaultWeightUpdate = time.Second
	shortestUpdate      = 100 * time.Millisecond
)

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return max(d, 0)
}

// Period is how often weights are to be computed.
func (c *ClientWeightedConfig) Period() time.Duration {
	return max(orDefault(c.UpdatePeriod, defaultWeightUpdate), shortestUpdate)
}

// Reports is how often hosts are to report out of band.
func (c *ClientWeightedConfig) Reports() time.Duration {
	return max(orDefault(c.ReportPeriod, defaultReportPeriod), shortestUpdate)
}

// LoadReport is what a host says of its load: ORCA's OrcaLoadReport.
type LoadReport struct {
	// CPU and Application are utilizations, 1 being all that the host has.
	CPU, Memory, Application float64
	// QPS and EPS are its requests and its errors per second.
	QPS, EPS float64
	// Named and Utilization are metrics and utilizations by name.
	Named, Utilization map[string]float64
}

// metric returns a value by its name in the configuration.
func (r *LoadReport) metric(name string) float64 {
	switch name {
	case "cpu_utilization":
		return r.CPU
	case "mem_utilization":
		return r.Memory
	case "application_utilization":
		return r.Application
	case "rps_fractional":
		return r.QPS
	case "eps":
		return r.EPS
	}
	const named, utilization = "named_metrics.", "utilization."
	switch {
	case len(name) > len(named) && name[:len(named)] == named:
		return r.Named[name[len(named):]]
	case len(name) > len(utilization) && name[:len(utilization)] == utilization:
		return r.Utilization[name[len(utilization):]]
	}
	return 0
}

// utilization is what the weight is computed from.
func (c *ClientWeightedConfig) utilization(r *LoadReport) float64 {
	if r.Application > 0 {
		return r.Application
	}
	var most float64
	for _, name := range c.Metrics {
		if v := r.metric(name); v > most && !math.IsInf(v, 1) { // not a number is not more
			most = v
		}
	}
	if most > 0 {
		return most
	}
	return r.CPU
}

// weight is qps/(utilization + eps/qps*penalty), 0 if the report has none.
func (c *ClientWeightedConfig) weight(r *LoadReport) float64 {
	utilization := c.utilization(r)
	if !(r.QPS > 0) || !(utilization > 0) {
		return 0
	}
	if r.EPS > 0 {
		utilization += r.EPS / r.QPS * c.ErrorPenalty
	}
	if w := r.QPS / utilization; w > 0 && !math.IsInf(w, 1) {
		return w
	}
	return 0
}

// reported is what a host's reports have come to.
type reported struct {
	weight atomic.Uint64 // a float64's bits; 0 without a report that has one
	since  atomic.Int64  // of the first report without a gap, since the set's epoch
	latest atomic.Int64
	// some is false before the first report, and after an expiration.
	some atomic.Bool
}

// ReportLoad tells a [ClientWeighted] policy what a host said of its load, at now.
// Other policies do not look at it. It neither locks nor allocates.
func (h *Host) ReportLoad(now time.Time, r *LoadReport) {
	config := h.set.weighted.Load()
	if config == nil {
		return
	}
	w := config.weight(r)
	if w == 0 {
		return
	}
	at := int64(now.Sub(h.set.epoch))
	if !h.load.some.Load() {
		h.load.since.Store(at)
	}
	h.load.weight.Store(math.Float64bits(w))
	h.load.latest.Store(at)
	h.load.some.Store(true)
}

// weight is what a host weighs at a time, 0 if that is not known.
func (r *reported) weightAt(at time.Duration, config *ClientWeightedConfig) float64 {
	if !r.some.Load() {
		return 0
	}
	if limit := orDefault(config.Expiration, defaultExpiration); limit > 0 && at-time.Duration(r.latest.Load()) >= limit {
		r.some.Store(false) // a blackout follows
		return 0
	}
	if blackout := orDefault(config.Blackout, defaultBlackout); at-time.Duration(r.since.Load()) < blackout {
		return 0
	}
	return math.Float64frombits(r.weight.Load())
}

// clientWeights returns the weights of hosts, nil if fewer than two are known: then
// all are equal. A host without a weight has the mean of the others.
func clientWeights(hosts []*Host, at time.Duration, config *ClientWeightedConfig) []uint64 {
	weights := make([]float64, len(hosts))
	var most float64
	known := 0
	for i, h := range hosts {
		if weights[i] = h.load.weightAt(at, config); weights[i] > 0 {
			known++
			most = max(most, weights[i])
		}
	}
	if known < 2 {
		return nil
	}
	// Hosts say what they like. Each weight is made a share of the largest before they
	// are added up, so that the sum is no infinity.
	const unknown = -1
	var sum float64
	for i, w := range weights {
		if w == 0 {
			weights[i] = unknown
			continue
		}
		weights[i] = w / most
		sum += weights[i]
	}
	// Weights are scaled so that the largest fits 16 bits, as in gRPC.
	const scale = math.MaxUint16
	scaled := make([]uint64, len(hosts))
	for i, w := range weights {
		if w == unknown {
			w = sum / float64(known)
		}
		scaled[i] = max(1, uint64(math.Round(w*scale)))
	}
	return scaled
}

// Reweigh computes the weights of a [ClientWeighted] policy from the reports that
// have come. With another policy it does nothing. Safe for concurrent use.
func (s *Set) Reweigh() {
	if s.weighted.Load() == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parting.forget()
	s.rebuildLocked(s.snapshot.Load().hosts)
}

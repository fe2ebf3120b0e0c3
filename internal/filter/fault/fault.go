// Package fault is the fault injection filter: it delays and aborts a share of the
// requests, and slows responses down, for tests of those who call.
package fault

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// Faults counts the faults that are active, across versions of a configuration.
// The zero value is ready. Safe for concurrent use.
type Faults struct {
	// Closing ends every delay when it is closed; nil never does. It is set before the
	// first filter is made.
	Closing <-chan struct{}

	mu sync.Mutex
	// active counts the faults that are capped and being injected; guarded by mu.
	active map[*discovery.Fault]uint32
}

// Filter returns the filter of a configuration.
func (f *Faults) Filter(config *discovery.Fault) filter.Filter {
	return &injector{faults: f, fault: config}
}

var _ filter.Idler = (*injector)(nil)

type injector struct {
	faults *Faults
	fault  *discovery.Fault
}

// Idle reports whether nothing is injected, whatever a request says of itself.
func (j *injector) Idle() bool {
	return j.fault.Delay == nil && j.fault.Abort == nil && j.fault.RateLimit == nil
}

// Request waits for the delay, if one is drawn, and returns the abort, if one is
// drawn. Delay, abort and the limit of the response's rate are drawn independently,
// the delay comes before the abort (Envoy fault filter). It returns early when ctx
// ends or the faults are closing.
func (j *injector) Request(ctx context.Context, x *filter.Exchange) (*filter.Answer, error) {
	fault := j.fault
	if !concerns(fault, &x.Request, &x.Decision) {
		return nil, nil
	}
	rate, limit := drawRate(fault.RateLimit, &x.Request)
	wait, delay := drawDelay(fault.Delay, &x.Request)
	answer := drawAbort(fault.Abort, &x.Request)
	if !limit && !delay && answer == nil {
		return nil, nil
	}
	limit = limit && answer == nil // there is no response to slow down
	if fault.MaxActive > 0 {
		if !j.faults.enter(fault) {
			return nil, nil
		}
		if limit {
			x.AtEnd(func() { j.faults.leave(fault) }) // it lasts as long as the response
		} else {
			defer j.faults.leave(fault)
		}
	}
	if limit {
		x.LimitBody(rate)
	}
	if delay {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-j.faults.Closing:
			return nil, net.ErrClosed
		}
	}
	return answer, nil
}

// Abort is what a fault does to a request: the answer, nil for none, and to how many
// of a million of such requests.
func Abort(config *discovery.Fault, req *route.Request, d *route.Decision) (answer *filter.Answer, share uint32) {
	if !concerns(config, req, d) {
		return nil, 0
	}
	return abortOf(config.Abort, req)
}

// Delay is how long a fault delays a request, and how many of a million of such
// requests.
func Delay(config *discovery.Fault, req *route.Request, d *route.Decision) (wait time.Duration, share uint32) {
	if !concerns(config, req, d) {
		return 0, 0
	}
	return delayOf(config.Delay, req)
}

// concerns reports whether a request is of those that a fault is for.
func concerns(fault *discovery.Fault, req *route.Request, d *route.Decision) bool {
	if fault.UpstreamCluster != "" && fault.UpstreamCluster != d.ClusterName(req) {
		return false
	}
	if fault.DownstreamNodes != nil && (req.Header == nil || !slices.ContainsFunc(req.Header.Values(nodeHeader), func(node string) bool {
		return slices.Contains(fault.DownstreamNodes, node)
	})) {
		return false
	}
	for i := range fault.Headers {
		if !route.MatchHeader(&fault.Headers[i], req) {
			return false
		}
	}
	return true
}

// nodeHeader names the node that sent a request.
const nodeHeader = "x-envoy-downstream-service-node"

// enter counts a fault in, unless as many as are allowed are active already.
func (f *Faults) enter(fault *discovery.Fault) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.active[fault] >= fault.MaxActive {
		return false
	}
	if f.active == nil {
		f.active = make(map[*discovery.Fault]uint32)
	}
	f.active[fault]++
	return true
}

func (f *Faults) leave(fault *discovery.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active[fault]--
	if f.active[fault] == 0 {
		delete(f.active, fault)
	}
}

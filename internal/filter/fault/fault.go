// Package fault is the fault injection filter: it delays and aborts a share of
// the requests, for tests of those who call.
package fault

import (
	"context"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// Faults counts the faults that are active, across versions of a configuration.
// The zero value is ready. Safe for concurrent use.
type Faults struct {
	mu sync.Mutex
	// active counts the faults that are capped and being injected; guarded by mu.
	active map[*discovery.Fault]uint32
}

// Filter returns the filter of a configuration.
func (f *Faults) Filter(config *discovery.Fault) filter.Filter {
	return &injector{faults: f, fault: config}
}

type injector struct {
	faults *Faults
	fault  *discovery.Fault
}

// Request waits for the delay, if one is drawn, and returns the abort, if one is
// drawn. Delay and abort are drawn independently, the delay comes first (Envoy
// fault filter). It returns early when ctx ends.
func (j *injector) Request(ctx context.Context, x *filter.Exchange) (*filter.Answer, error) {
	fault := j.fault
	for i := range fault.Headers {
		if !route.MatchHeader(&fault.Headers[i], &x.Request) {
			return nil, nil
		}
	}
	wait, delay := drawDelay(fault.Delay, &x.Request)
	answer := drawAbort(fault.Abort, &x.Request)
	if !delay && answer == nil {
		return nil, nil
	}
	if fault.MaxActive > 0 {
		if !j.faults.enter(fault) {
			return nil, nil
		}
		defer j.faults.leave(fault)
	}
	if delay {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return answer, nil
}

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

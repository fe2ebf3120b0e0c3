package decode

import (
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/retry"
)

// Where a route's metadata say what no field of a route can.
const (
	// hedgeKey has a hedge after a delay, as hedgingPolicy of a gRPC service
	// config has it: {delay: 50ms, maxAttempts: 3}.
	hedgeKey = "inboard.hedge"
	// deadlineKey refuses calls for which too little time is left:
	// {minimum: 20ms}.
	deadlineKey = "inboard.deadline"
)

// hedgePolicy decodes a HedgePolicy; nil without one, or without a hedge in it.
func (d *decoder) hedgePolicy(at path, m *routev3.HedgePolicy) *retry.Hedge {
	if n := m.GetInitialRequests(); n != nil && n.GetValue() > 1 {
		d.refusef(at.field("initial_requests"), `%d is not supported, as no Envoy implements it: use the metadata %q`, n.GetValue(), hedgeKey)
	}
	if !m.GetHedgeOnPerTryTimeout() {
		return nil
	}
	return &retry.Hedge{OnPerTryTimeout: true}
}

// routeMetadata decodes what a route's metadata say to the mesh. Metadata under
// other keys are for others.
func (d *decoder) routeMetadata(at path, m *corev3.Metadata, f *discovery.Forward) {
	metadata := m.GetFilterMetadata()
	if config, ok := metadata[hedgeKey]; ok {
		in := at.entry("filter_metadata", hedgeKey)
		hedge := &retry.Hedge{}
		for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
			value := config.GetFields()[name]
			switch name {
			case "delay":
				hedge.Delay = d.period(in.field(name), value, time.Second)
			case "maxAttempts":
				if hedge.MaxAttempts = d.count(in.field(name), value, 2); hedge.MaxAttempts < 2 {
					d.refusef(in.field(name), "must be at least 2: the first attempt counts")
				}
			default:
				d.refusef(in.field(name), "unknown: use delay and maxAttempts")
			}
		}
		if hedge.Delay <= 0 {
			d.refusef(in.field("delay"), "must be set to a positive duration")
		}
		f.Hedge = hedge
	}
	if config, ok := metadata[deadlineKey]; ok {
		in := at.entry("filter_metadata", deadlineKey)
		for _, name := range slices.Sorted(maps.Keys(config.GetFields())) {
			if name != "minimum" {
				d.refusef(in.field(name), "unknown: use minimum")
				continue
			}
			if f.MinTime = d.period(in.field(name), config.GetFields()[name], 0); f.MinTime < 0 {
				d.refusef(in.field(name), "must not be negative: is %v", f.MinTime)
			}
		}
	}
}

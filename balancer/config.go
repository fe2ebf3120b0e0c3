package balancer

import "time"

// Policy is a load-balancing algorithm.
type Policy uint8

const (
	// RoundRobin takes endpoints in turn, by weight. It is Envoy's default.
	RoundRobin Policy = iota
	// LeastRequest takes the less busy of ChoiceCount random endpoints; it is
	// Istio's default.
	LeastRequest
	// Random takes any endpoint, by weight.
	Random
	// RingHash sends what has the same hash to the same endpoint, by Envoy's
	// ring: when an endpoint leaves, only what it had goes elsewhere, as long as
	// the others keep their numbers of points. These follow from the ring's size
	// and the number of endpoints, so that with a minimum size, such as the
	// default, a little of what the others had moves, too.
	RingHash
	// Maglev does so by a table, which is more even than a ring and moves a
	// little more when an endpoint leaves.
	Maglev
	// ClientWeighted is round robin by what endpoints report of their load.
	ClientWeighted
	// PeakEWMA takes, of two random endpoints, the one that is likely to answer
	// sooner. It is told response times by [Host.Took].
	PeakEWMA
	// PickFirst stays with the first endpoint that can be reached.
	PickFirst
	// CustomPolicy is the one of Config.Custom.
	CustomPolicy
)

// Config is how a cluster balances. The zero value is round robin without a
// panic mode.
type Config struct {
	Policy Policy
	// ChoiceCount is for LeastRequest; 0 means Envoy's default of 2.
	ChoiceCount uint32
	// FullScan makes LeastRequest compare all endpoints instead, if their weights
	// are equal. A pick then takes time in proportion to their number.
	FullScan bool
	// ActiveRequestBias is for LeastRequest with unequal weights; 0 is taken
	// as Envoy's default of 1.
	ActiveRequestBias float64
	// SlowStart is for RoundRobin, LeastRequest and ClientWeighted; the zero value
	// is none.
	SlowStart SlowStart
	// MinRingSize and MaxRingSize are for RingHash; 0 means [DefaultMinRingSize]
	// and [DefaultMaxRingSize]. A ring has at most 4096 points all the same, or
	// one for each endpoint if there are more.
	MinRingSize, MaxRingSize uint64
	// RingMurmur places RingHash's points by MurmurHash2 instead of xxHash, as
	// Envoy's MURMUR_HASH_2 does. What is hashed of requests stays xxHash.
	RingMurmur bool
	// MaglevSize is the table's, for Maglev: a prime number, see
	// [ValidMaglevSize]; 0 means [DefaultMaglevSize].
	MaglevSize uint64
	// HashHostnames lets RingHash and Maglev place endpoints by their host names
	// instead of their addresses.
	HashHostnames bool
	// HashBalanceFactor bounds what RingHash and Maglev send to one endpoint: its
	// share of the requests in flight times so many percent, rounded up. It is 100
	// or more; 0 is no bound. Picks need [PickInfo.InFlight].
	HashBalanceFactor uint32
	// ClientWeighted is for the policy of that name.
	ClientWeighted ClientWeightedConfig
	// DecayTime is how long PeakEWMA remembers; 0 means 10 s.
	DecayTime time.Duration
	// Shuffle lets each client have an order of its own for PickFirst.
	Shuffle bool
	// Subsetting gives each client some of the endpoints only. It is for whoever
	// calls [Set.Update], see [Subsetting.Choose].
	Subsetting Subsetting
	// Subsets divides the endpoints by their metadata; nil does not.
	Subsets *Subsets
	// Custom is for CustomPolicy, and must be set with it.
	Custom *Custom
	// Pinnable is the states of health in which a host is picked by
	// [PickInfo.Pinned] (Envoy's override_host_status); the zero value means
	// [Unknown] and [Healthy], as in gRFC A55.
	Pinnable HealthSet
	// PanicThreshold is Envoy's healthy_panic_threshold in percent: below that
	// share of healthy endpoints all are used. 0 means never. Envoy's default
	// of 50 is filled in by the decoder.
	PanicThreshold float64
	// FailOnPanic makes picks fail where endpoints would be used in spite of their
	// health (Envoy's fail_traffic_on_panic), with [ErrPanic].
	FailOnPanic bool
	// LocalityWeighted spreads by locality weight; otherwise the localities of
	// a priority are one set.
	LocalityWeighted bool
	// ZoneAware prefers the caller's locality; nil does not.
	ZoneAware *ZoneAware
	// Failover chooses priorities as gRPC does; nil does so as Envoy.
	Failover *Failover
	// OverprovisioningFactor is in percent; 0 means Envoy's default of 140.
	OverprovisioningFactor uint32
}

package balancer

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
)

// Config is how a cluster balances. The zero value is round robin without a
// panic mode.
type Config struct {
	Policy Policy
	// ChoiceCount is for LeastRequest; 0 means Envoy's default of 2.
	ChoiceCount uint32
	// ActiveRequestBias is for LeastRequest with unequal weights; 0 is taken
	// as Envoy's default of 1.
	ActiveRequestBias float64
	// PanicThreshold is Envoy's healthy_panic_threshold in percent: below that
	// share of healthy endpoints all are used. 0 means never. Envoy's default
	// of 50 is filled in by the decoder.
	PanicThreshold float64
	// LocalityWeighted spreads by locality weight; otherwise the localities of
	// a priority are one set.
	LocalityWeighted bool
	// OverprovisioningFactor is in percent; 0 means Envoy's default of 140.
	OverprovisioningFactor uint32
}

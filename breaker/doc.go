// Package breaker keeps a cluster from being asked for more than it can bear.
//
// There are two independent breakers. A [Gate] is Envoy's circuit breaker: it
// counts connections, pending requests, requests and retries in flight and
// refuses what is over the [Limits] ([DefaultLimits] unless configured). It also
// enforces a retry budget. An [ErrorRate] watches what becomes of the attempts:
// it opens when too large a share of them fails and then lets a few through to
// see whether that is over. It is off unless configured ([Settings]).
//
//	if !gate.TryRequest() {
//		return overflow
//	}
//	defer gate.ReleaseRequest()
//	permit, err := errorRate.Allow()
//	if err != nil {
//		return err // matches ErrOpen
//	}
//	verdict := outcome.Ignored // what a panic counts as
//	defer func() { permit.Done(verdict) }()
//	verdict = attempt().Verdict()
//
// A refusal is not a failure of the cluster: it is outcome.Overflow, whose
// verdict is Ignored, and it is never retried.
package breaker

// Package retry decides whether a failed attempt of a call is made again, and
// when. It never sends and never sleeps.
//
// A [Policy] says which outcomes are worth another attempt ([Conditions]), how
// many retries there may be, and how long to wait ([Backoff]). Its zero value
// makes one attempt and no more. [Policy.Start] gives each call its own
// [Sequence], and [Sequence.Next] turns the outcome of an attempt into a
// decision:
//
//	seq := policy.Start()
//	for {
//		out := attempt()
//		wait, ok := seq.Next(&out)
//		if !ok {
//			return out
//		}
//		sleep(wait)
//	}
//
// HTTP follows Envoy's router (one to MaxRetries retries, fully jittered
// back-off), gRPC follows gRFC A6 and A44 (at most five attempts, exponential
// back-off, the server's pushback).
//
// Retries multiply load just when a cluster can bear it least. A count per call
// does not bound that: with three retries, a cluster that fails everything gets
// four times its traffic. A [Budget] does, since it limits the retries in flight
// to a share of the requests in flight: whatever fails, the cluster gets at most
// that share on top. It is configuration here; breaker.Gate counts and enforces
// it, for it is the place that knows what is in flight.
package retry

// Package discovery is the mesh's own model of its configuration: what a
// control plane decided for a destination ([Target]) or for a listener of this
// process ([Inbound]), decoded, validated and complete.
//
// Every value is immutable after it was published and may be shared between
// goroutines. The policies are those of the leaf packages (retry, breaker,
// balancer), so that nothing above has to translate. Where a value comes from,
// and in which dialect, is known only to the [Source] that publishes it.
package discovery

// Package xds is the [discovery.Source] that follows an xDS control plane.
//
// It speaks the proxyless dialect: a destination "host:port" is a Listener with
// an api_listener (its name by the bootstrap's template), which leads to a
// RouteConfiguration, to Clusters, and to their ClusterLoadAssignments (gRFC
// A27, A74). A listener of this process is a Listener named by the bootstrap's
// server template (gRFC A36). Everything is asked for on demand over one
// aggregated stream per [Source], however many destinations are watched.
//
// What the layers above can rely on:
//
//   - A [discovery.Target] is published when it is complete, and only then.
//     Traffic stays on the old clusters until the new ones have endpoints.
//   - A cluster that is broken carries its own error and holds nobody up.
//   - A control plane that is lost, or says something invalid, changes nothing
//     but the ambient error of an update.
//   - What did not change keeps its pointer, and nothing is published twice.
package xds

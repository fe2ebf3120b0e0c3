// Package spiffe gets this workload's certificate from a SPIFFE Workload API,
// which SPIRE's agent offers on a Unix socket, and keeps it fresh: the API sends
// a new one before the old one expires.
//
// [New] waits for the first certificate. Afterwards the stream is opened again,
// with growing pauses, whenever it breaks; the certificate stays in use until it
// expires. From then on there is no identity, and handshakes fail.
//
// The bundle of the own trust domain verifies its members. Bundles of federated
// trust domains verify the members of theirs, and nobody else's; whether those
// may be talked to is for the configuration to say, which lists their names.
//
// The configuration is that of the certificate provider plugin
// "spiffe_workload_api" in a gRPC bootstrap file; see [ParseConfig].
package spiffe

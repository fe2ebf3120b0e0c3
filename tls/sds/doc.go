// Package sds gets this workload's certificate and the roots from a secret discovery
// service on a Unix socket, which Istio's agent and SPIRE's agent offer, and keeps
// them fresh: the service sends new ones.
//
// [New] waits for the first certificate with its roots. Afterwards a stream is
// opened again, with growing pauses, whenever it breaks; what there is stays in use
// until the certificate expires. From then on there is no identity, and handshakes
// fail.
//
// What the service sends is taken over whole or not at all: a secret that says more
// than is understood, or that names a file, is rejected, to the service and in the
// events, and what was there before stays in force. Roots may come with revocation
// lists (crl). No error holds what a secret holds.
//
// It is for the workload's own identity. Secrets that the configuration names with an
// ads config source come over the stream of the control plane, and need no source.
//
// The configuration is that of the certificate provider plugin "sds" in a gRPC
// bootstrap file, which is ours; see [ParseConfig].
package sds

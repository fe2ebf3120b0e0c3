// Package meshtls is mutual TLS between the members of a mesh: who a workload
// is ([ID], [Identity]), where that comes from ([Source]), who may talk to it
// ([Authorizer]), and the TLS configurations that follow ([ClientConfig],
// [ServerConfig]).
//
// By default it is strict, and it fails closed:
//
//   - TLS 1.3 only; no session tickets on servers and no session cache on
//     clients, so that every connection is verified.
//   - The certificate and the roots are asked for at every handshake. A
//     rotation acts on the next connection; a source without an identity fails
//     the handshake and never falls back to plaintext.
//   - The peer's chain, its extended key usage, its validity, its single
//     SPIFFE ID and the [Authorizer] are checked in
//     [crypto/tls.Config.VerifyConnection], which a resumed session cannot skip.
//   - The peer learns from the alert that it was refused, and not why. The
//     reason is in the [HandshakeError].
//
// [Listener] decides by the first bytes of a connection whether it is TLS, so
// that one port serves both while a mesh moves from plaintext to mutual TLS
// (Istio's PERMISSIVE), or TLS alone (STRICT).
//
// The package issues no certificates and watches no files: tls/istioca and
// tls/filesource are sources that do.
package meshtls

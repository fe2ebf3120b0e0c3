// Package istioca gets this workload's certificate from Istio's certificate
// service (istio.v1.auth.IstioCertificateService), which istiod offers, and the
// CA of this project does.
//
// [New] asks for the first certificate and [Source] renews it:
//
//   - Each request has a new ECDSA P-256 key, which never leaves the process.
//   - The first request authenticates by the token in a file, which is read
//     again each time. Later ones authenticate by the current certificate, and
//     by the token if that is refused or has expired.
//   - The service's own certificate is always verified: against the root file,
//     which is read again each time, or the system's roots.
//   - The next request is made at a random time between one half and two thirds
//     of the certificate's life. While it fails it is repeated with growing
//     pauses; the certificate stays in use until it expires. From then on there
//     is no identity, and handshakes fail.
//   - The roots that verify peers are those of the last reply.
//
// The configuration is that of the certificate provider plugin "istio_ca" in a
// gRPC bootstrap file; see [ParseConfig].
package istioca

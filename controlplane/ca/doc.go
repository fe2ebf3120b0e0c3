// Package ca is the certificate authority of the embedded control plane. It
// offers Istio's istio.v1.auth.IstioCertificateService, so that whatever can
// get a certificate from istiod can get one here.
//
// The identity in a certificate is the identity of the caller, never what the
// request asks for. A caller proves who it is in one of two ways:
//
//   - with a token from [CA.IssueToken], for the first certificate: an ES256
//     JWT with audience "istio-ca" and subject "system:serviceaccount:NS:SA";
//   - with the certificate that this CA gave it before, for renewal.
//
// Everything else is refused, with a message that tells nothing about the
// CA, and with a log line that tells why.
//
// Certificates are X.509-SVIDs: one URI SAN, spiffe://TRUST_DOMAIN/ns/NS/sa/SA,
// for use as client and as server. They live for as long as the caller asks
// for, at most [Config.MaxTTL].
//
// # Keys
//
// Without [Config.Dir] the keys live in memory and end with the process: good
// for tests. With it, an empty or missing directory is filled on first use:
//
//	root-cert.pem   the trust bundle (several certificates during a rotation)
//	ca-key.pem      the key that signs certificates, mode 0600
//	token-key.pem   the key that signs tokens, mode 0600
//
// A directory with ca-cert.pem in it is a plugged-in CA in Istio's layout:
// ca-cert.pem signs, ca-key.pem is its key, root-cert.pem is the trust bundle
// and cert-chain.pem (optional) leads from one to the other. A key file that
// anybody but its owner can read is refused, and so is a directory that
// everybody can write to.
//
// # Changing the root
//
// A root must be trusted everywhere before anything is signed with it, and be
// trusted until nothing that it signed is in use. So a change has three steps,
// with at least one certificate lifetime between them: [CA.PrepareRotation],
// [CA.PromoteRoot], [CA.FinishRotation].
//
// # What it is not
//
// There is no revocation: certificates are short-lived instead. It is not an
// OIDC provider and does not ask Kubernetes about tokens.
package ca

package meshtls

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// longestMargin bounds how long before a certificate's end connections that
// rest on it are replaced; short lives have a tenth of theirs.
const longestMargin = 5 * time.Second

// Expiry returns when a connection should have been replaced: shortly before
// the first of the certificates expires that the peer presented, or that own
// held at the handshake. own may be nil or hold roots only. The zero time means
// never: there is no certificate.
//
// A server of the mesh serves nothing over a connection whose client's
// certificate has expired, so a client that gives up its connections in time
// never notices.
func Expiry(state tls.ConnectionState, own *Identity) time.Time {
	var first time.Time
	look := func(cert *x509.Certificate) {
		margin := min(longestMargin, cert.NotAfter.Sub(cert.NotBefore)/10)
		if due := cert.NotAfter.Add(-margin); first.IsZero() || due.Before(first) {
			first = due
		}
	}
	for _, cert := range state.PeerCertificates {
		look(cert)
	}
	if own != nil && own.Certificate.Leaf != nil {
		look(own.Certificate.Leaf)
	}
	return first
}

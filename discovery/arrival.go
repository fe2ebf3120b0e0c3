package discovery

import "net/netip"

// HeaderLimits bound the headers of a request. Zero is no limit but that of the
// server.
type HeaderLimits struct {
	// Bytes bounds names and values, as HTTP/1.1 writes them, together.
	Bytes uint32
	// Count bounds how many header fields there are.
	Count uint32
}

// Forwarding is what a server makes of the headers in which those before it
// tell of the client: whom it believes, and what it adds. The zero value
// believes nobody but the verified peer, and removes x-forwarded-client-cert.
type Forwarding struct {
	// Client is how the client's address is found.
	Client ClientAddress
	// Hops is how many proxies before this server are trusted to have added to
	// x-forwarded-for (xff_num_trusted_hops).
	Hops uint32
	// TrustedProxies, instead of Hops, are the addresses of those proxies.
	TrustedProxies []netip.Prefix
	// SkipAppend does not add the peer's address to x-forwarded-for, which
	// ClientIsPeer does otherwise.
	SkipAppend bool
	// Internal are the addresses of clients that are inside: theirs are the
	// x-envoy headers that are believed. Empty is none.
	Internal []netip.Prefix
	// RequestID gives a request without an x-request-id one; KeepRequestID
	// keeps the one that a client from outside has sent.
	RequestID, KeepRequestID bool
	// Certificate is what happens to x-forwarded-client-cert, Details what is
	// told of the peer's certificate if it is set.
	Certificate ForwardedCertificate
	Details     CertificateDetails
}

// ClientAddress is how a server finds out the address of a client.
type ClientAddress uint8

const (
	// ClientUnsaid is a configuration that does not say: it is the peer's, or
	// what trusted proxies say.
	ClientUnsaid ClientAddress = iota
	// ClientIsPeer is use_remote_address: the peer is the client unless Hops
	// proxies stand between, and its address is added to x-forwarded-for.
	ClientIsPeer
	// ClientIsForwarded is use_remote_address set to false: the last address in
	// x-forwarded-for, if a verified member of the mesh has sent it.
	ClientIsForwarded
)

// ForwardedCertificate is what a server does with x-forwarded-client-cert.
type ForwardedCertificate uint8

const (
	// CertificateSanitize removes it.
	CertificateSanitize ForwardedCertificate = iota
	// CertificateForward keeps what a peer with a certificate has sent.
	CertificateForward
	// CertificateAppend adds the peer to that.
	CertificateAppend
	// CertificateSet has the peer alone.
	CertificateSet
	// CertificateAlwaysForward keeps it from anybody.
	CertificateAlwaysForward
)

// CertificateDetails is what x-forwarded-client-cert tells beside the digest of
// the certificate.
type CertificateDetails struct{ Subject, Certificate, Chain, DNS, URI bool }

package meshtls

import (
	"strconv"
	"strings"
)

// Reason says why a connection was refused.
type Reason uint8

const (
	// NoIdentity means that our own source has no usable certificate.
	NoIdentity Reason = iota + 1
	// NoRoots means that our own source has no roots to verify the peer with.
	NoRoots
	// NoPeerCertificate means that the peer presented no certificate.
	NoPeerCertificate
	// UnknownAuthority means that no root of ours verifies the peer.
	UnknownAuthority
	// Expired means that the peer's certificate is no longer valid.
	Expired
	// NotYetValid means that the peer's certificate is not valid yet.
	NotYetValid
	// WrongUsage means that the peer's certificate is not made for its side of
	// the connection (extended key usage), or is not a leaf.
	WrongUsage
	// InvalidID means that the peer's certificate does not have exactly one
	// URI SAN that is a SPIFFE ID.
	InvalidID
	// InvalidCertificate means that the peer's chain is invalid in another way.
	InvalidCertificate
	// NotAuthorized means that the peer is who it says, and is not allowed.
	NotAuthorized
	// PlaintextRefused means that a peer did not speak TLS to a listener that
	// speaks nothing else.
	PlaintextRefused
	// NotServed means that the listener's policy allows no connection, or that
	// there is no policy.
	NotServed
	// TimedOut means that the first bytes or the handshake took too long.
	TimedOut
	// Overloaded means that too many connections were in their handshake and
	// that this was the oldest of them.
	Overloaded
	// HandshakeFailed means that the handshake broke in another way: no common
	// version or protocol, an alert from the peer, a broken connection.
	HandshakeFailed
	// Revoked means that a revocation list names a certificate of the peer's chain,
	// or that there is no valid list of the issuer of one.
	Revoked
)

var reasonTexts = [...]string{
	NoIdentity:         "no identity of our own",
	NoRoots:            "no roots to verify the peer with",
	NoPeerCertificate:  "peer presented no certificate",
	UnknownAuthority:   "certificate signed by unknown authority",
	Expired:            "certificate expired",
	NotYetValid:        "certificate not yet valid",
	WrongUsage:         "certificate not made for this use",
	InvalidID:          "certificate without exactly one SPIFFE ID",
	InvalidCertificate: "invalid certificate",
	NotAuthorized:      "peer not authorized",
	PlaintextRefused:   "plaintext refused",
	NotServed:          "connection not served",
	TimedOut:           "handshake timed out",
	Overloaded:         "too many pending handshakes",
	HandshakeFailed:    "handshake failed",
	Revoked:            "certificate revoked, or not known not to be",
}

// String returns a short text for logs.
func (r Reason) String() string {
	if r > 0 && int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return "reason " + strconv.Itoa(int(r))
}

// HandshakeError is why a connection was refused on this side. It is found in
// the error of the handshake with errors.AsType; the peer is not told.
type HandshakeError struct {
	Reason Reason
	// Peer is the ID that the peer's certificate claims, zero if it claims
	// none. It is proven only if Reason is NotAuthorized.
	Peer ID
	// Err has the details; it may be nil.
	Err error
}

// Error returns the peer's ID, the reason and the details.
func (e *HandshakeError) Error() string {
	var b strings.Builder
	b.WriteString("mutual TLS: ")
	if !e.Peer.IsZero() {
		b.WriteString("peer " + strconv.Quote(e.Peer.String()) + ": ")
	}
	b.WriteString(e.Reason.String())
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the details.
func (e *HandshakeError) Unwrap() error { return e.Err }

package discovery

// Families is the order in which the addresses of an endpoint that has several are
// tried: those of IPv6 and IPv4 by turns, a quarter of a second apart (RFC 8305). The
// zero value begins with one of the family that the first address is of.
type Families struct {
	// First is the family to begin with.
	First Family
	// Count is how many of it are tried before the first of the other; 0 means 1.
	Count uint32
}

// Family is a family of addresses.
type Family uint8

const (
	// AnyFamily is that of the first address.
	AnyFamily Family = iota
	// IPv4 is that of addresses such as 10.0.0.1.
	IPv4
	// IPv6 is that of addresses such as fd00::1.
	IPv6
)

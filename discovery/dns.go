package discovery

import "time"

// DNS is how the names of a cluster's endpoints become addresses. The resolver is
// that of the process, which tells no times to live: names are asked for again
// after fixed times.
type DNS struct {
	// Logical makes one endpoint of a name, whose new connections go to what the
	// name stands for at the time (LOGICAL_DNS). Otherwise every address of a name
	// is an endpoint (STRICT_DNS).
	Logical bool
	Family  DNSFamily
	// Refresh is how long after a good answer a name is asked for again. Envoy's
	// default of 5 s is filled in by the decoder.
	Refresh time.Duration
	// Jitter is up to how much longer that is, by chance; 0 is none.
	Jitter time.Duration
	// FailureBase and FailureMax bound the waits after failures, which grow
	// exponentially with full jitter; 0 is to wait for Refresh.
	FailureBase, FailureMax time.Duration
}

// DNSFamily is which addresses of a name are used.
type DNSFamily uint8

const (
	// DNSAuto uses IPv6 addresses or, if there are none, those of IPv4. It is
	// Envoy's default.
	DNSAuto DNSFamily = iota
	// DNSV4Only uses IPv4 addresses.
	DNSV4Only
	// DNSV6Only uses IPv6 addresses.
	DNSV6Only
	// DNSV4Preferred uses IPv4 addresses or, if there are none, those of IPv6.
	DNSV4Preferred
	// DNSAll uses all of them.
	DNSAll
)

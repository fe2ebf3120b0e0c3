package controlplane

import (
	"net/netip"
	"strings"
)

// isDNSLabel reports whether s is what Kubernetes takes for a namespace (RFC
// 1123, in lower case).
func isDNSLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isServerName reports whether a client can look for s in a certificate: an IP
// address, or a DNS name in any case, whose first label may be "*".
func isServerName(s string) bool {
	if address, err := netip.ParseAddr(s); err == nil {
		return address.Zone() == ""
	}
	if len(s) > 253 {
		return false
	}
	rest, wildcard := strings.CutPrefix(strings.ToLower(s), "*.")
	labels := strings.Split(rest, ".")
	for _, label := range labels {
		// Hosts are found by names with underscores too.
		if !isDNSLabel(strings.ReplaceAll(label, "_", "x")) {
			return false
		}
	}
	// No certificate is for every name of a top-level domain, and a name that
	// ends in a number is an address that was misspelled.
	last := labels[len(labels)-1]
	return (!wildcard || len(labels) > 1) && strings.Trim(last, "0123456789") != ""
}

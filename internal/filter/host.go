package filter

import (
	"net/netip"
	"strings"
)

// PlainHost reports whether everybody reads the authority of a request in the same
// way: as a name, an IPv4 address or an IPv6 address in brackets, with a port or
// without (RFC 3986, host and port, without what only some take apart: user names,
// escapes, brackets round a name). None at all is read by all as none.
func PlainHost(host string) bool {
	if host == "" {
		return true
	}
	if strings.HasPrefix(host, "[") {
		inside, rest, ok := strings.Cut(host[1:], "]")
		if !ok || rest != "" && rest[0] != ':' {
			return false
		}
		ip, err := netip.ParseAddr(inside)
		return err == nil && ip.Is6() && ip.Zone() == "" && isPort(strings.TrimPrefix(rest, ":"))
	}
	name, port, _ := strings.Cut(host, ":")
	if !isPort(port) {
		return false
	}
	if name == "" || name[0] == '.' || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !isUnreserved(c) && c != '.' {
			return false
		}
	}
	return true
}

// isPort reports whether a text is a port, or none.
func isPort(text string) bool {
	if len(text) > len("65535") {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

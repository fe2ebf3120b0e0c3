package istio

import (
	"net/netip"
	"strings"
)

// serviceSuffix ends the names of services as Kubernetes and Istio give them:
// NAME.NAMESPACE.svc.cluster.local.
const serviceSuffix = ".svc.cluster.local"

// isDNSLabel is RFC 1123 in lower case: letters, digits and '-' inside.
func isDNSLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func isDNSSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isDNSLabel(label) {
			return false
		}
	}
	return true
}

// checkHost reports whether host can name a service here, and why not.
func checkHost(host string, a at) bool {
	switch {
	case host == "":
		a.errorf("is required")
	case strings.Contains(host, "*"):
		a.errorf("%q: hosts with a wildcard are not supported: name each host", host)
	case host != strings.ToLower(host):
		a.errorf("%q: write hosts in lower case", host)
	case !isDNSSubdomain(host):
		a.errorf("%q is not a host name", host)
	default:
		return true
	}
	return false
}

// checkPattern is checkHost for hosts that can be wildcards: "*.suffix", or "*"
// where every host can be meant.
func checkPattern(host string, every bool, a at) bool {
	suffix, ok := strings.CutPrefix(host, "*")
	switch {
	case !ok:
		return checkHost(host, a)
	case suffix == "" && every:
		return true
	case suffix == "":
		a.errorf("\"*\" is not possible for the mesh: name a host, or a suffix like \"*.example.com\"")
		return false
	case suffix[0] != '.' || !isDNSSubdomain(suffix[1:]):
		a.errorf("%q is not a wildcard: write it like \"*.example.com\", in lower case", host)
		return false
	}
	return true
}

func isWildcard(host string) bool { return strings.HasPrefix(host, "*") }

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// fullHost completes a name without dots, as Istio does in the hosts of
// VirtualService and DestinationRule: by the namespace of the object.
func fullHost(host, namespace string) string {
	if host == "" || host == "*" || strings.Contains(host, ".") || isAddress(host) {
		return host
	}
	return host + "." + namespace + serviceSuffix
}

// serviceName splits NAME.NAMESPACE.svc.cluster.local.
func serviceName(host string) (name, namespace string, ok bool) {
	short, ok := strings.CutSuffix(host, serviceSuffix)
	if !ok {
		return "", "", false
	}
	name, namespace, ok = strings.Cut(short, ".")
	return name, namespace, ok && !strings.Contains(namespace, ".")
}

// searchHost completes a name as the resolver of a pod in namespace does, with
// the search path NAMESPACE.svc.cluster.local, svc.cluster.local,
// cluster.local.
func searchHost(host, namespace string) string {
	switch {
	case strings.HasSuffix(host, ".svc"):
		return host + strings.TrimPrefix(serviceSuffix, ".svc")
	case strings.Count(host, ".") == 1:
		return host + serviceSuffix
	case !strings.Contains(host, ".") && namespace != "":
		return fullHost(host, namespace)
	}
	return host
}

func isPort(n uint32) bool { return n >= 1 && n <= 65535 }

package arrival

import "github.com/inboardmesh/inboard/discovery"

// lineOverhead is what HTTP/1.1 writes around a name and a value: ": " and CRLF.
const lineOverhead = 4

// TooLarge reports whether the headers of a request break a limit. Every value of
// a name is a header field, and a cookie that HTTP/2 has cut is as many as it
// was cut into. beside are the host and the target, which Envoy has as
// pseudo-headers: they count as bytes, and not as fields that somebody has added.
func TooLarge(limits discovery.HeaderLimits, headers map[string][]string, beside ...string) bool {
	if limits == (discovery.HeaderLimits{}) {
		return false
	}
	var count, size int
	for name, values := range headers {
		count += len(values)
		for _, value := range values {
			size += len(name) + len(value) + lineOverhead
		}
	}
	for _, text := range beside {
		size += len(text)
	}
	return limits.Count > 0 && count > int(limits.Count) || limits.Bytes > 0 && size > int(limits.Bytes)
}

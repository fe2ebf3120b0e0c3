package arrival

import "github.com/inboardmesh/inboard/discovery"

// lineOverhead is what HTTP/1.1 writes around a name and a value: ": " and CRLF.
const lineOverhead = 4

// TooLarge reports whether the headers of a request break a limit. Every value of
// a name is a header field, and a cookie that HTTP/2 has cut is as many as it
// was cut into.
func TooLarge(limits discovery.HeaderLimits, headers map[string][]string) bool {
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
	return limits.Count > 0 && count > int(limits.Count) || limits.Bytes > 0 && size > int(limits.Bytes)
}

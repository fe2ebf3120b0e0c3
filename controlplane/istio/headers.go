package istio

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	networking "istio.io/api/networking/v1alpha3"
)

// headerOps are header operations in Envoy's form.
type headerOps struct {
	requestAdd, responseAdd       []*corev3.HeaderValueOption
	requestRemove, responseRemove []string
}

func (o *headerOps) append(more headerOps) {
	o.requestAdd = append(o.requestAdd, more.requestAdd...)
	o.requestRemove = append(o.requestRemove, more.requestRemove...)
	o.responseAdd = append(o.responseAdd, more.responseAdd...)
	o.responseRemove = append(o.responseRemove, more.responseRemove...)
}

// headerOperations translates header operations. The authority is left out: it
// is rewritten by the route, not set as a header.
func headerOperations(h *networking.Headers, a at) headerOps {
	request, response := h.GetRequest(), h.GetResponse()
	ra, pa := a.field("request"), a.field("response")
	const set, add = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	return headerOps{
		requestAdd: append(
			headerValues(request.GetSet(), set, true, ra.field("set")),
			headerValues(request.GetAdd(), add, true, ra.field("add"))...),
		responseAdd: append(
			headerValues(response.GetSet(), set, false, pa.field("set")),
			headerValues(response.GetAdd(), add, false, pa.field("add"))...),
		requestRemove:  headerNames(request.GetRemove(), ra.field("remove")),
		responseRemove: headerNames(response.GetRemove(), pa.field("remove")),
	}
}

func headerValues(values map[string]string, action corev3.HeaderValueOption_HeaderAppendAction, request bool, a at) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, name := range sortedKeys(values) {
		value := values[name]
		if request && isAuthority(name) {
			checkPlainValue(value, a.key(name))
			continue
		}
		checkHeaderValue(value, request, a.key(name))
		if !isHeaderName(name) || isAuthority(name) {
			a.key(name).refuse("is not a header that can be changed")
			continue
		}
		out = append(out, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action,
		})
	}
	return out
}

func headerNames(names []string, a at) []string {
	for i, name := range names {
		if !isHeaderName(name) || isAuthority(name) {
			a.index(i).errorf("%q is not a header that can be removed", name)
		}
	}
	return names
}

// checkPlainValue refuses what cannot be sent, and percent signs where Envoy has no
// command operators.
func checkPlainValue(value string, a at) {
	if strings.Contains(value, "%") {
		a.errorf("has a percent sign, and there are no command operators here: remove %%")
	}
	checkHeaderText(value, a)
}

// checkHeaderText refuses what cannot be sent. The value is not quoted: it may be a
// secret.
func checkHeaderText(value string, a at) {
	if len(value) > 16384 {
		a.errorf("has %d bytes: at most 16384 are possible", len(value))
	}
	for _, c := range value {
		switch {
		case c < ' ' && c != '\t' || c == 0x7f:
			a.errorf("has the control character %q", c)
			return
		case c > 0x7f:
			a.errorf("has the letter %q, which is not ASCII: gRPC cannot send it", c)
			return
		}
	}
	if strings.TrimSpace(value) != value {
		a.errorf("begins or ends with white space, which HTTP/1.1 takes away")
	}
}

// isHeaderName is the token of RFC 9110.
func isHeaderName(name string) bool {
	if name == "" || len(name) > 16384 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}

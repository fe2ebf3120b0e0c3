package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
)

var mutationFields = []messageFields{
	{message: (*corev3.HeaderValueOption)(nil), read: "header append append_action keep_empty_value"},
	{message: (*corev3.HeaderValue)(nil), read: "key value raw_value"},
}

// headerMutator is a message of one of the four levels that change headers.
type headerMutator interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

// headerMutations decodes the header operations of m.
func (d *decoder) headerMutations(at path, m headerMutator) discovery.HeaderMutations {
	return discovery.HeaderMutations{
		RequestAdd:     d.headersToAdd(at, "request_headers_to_add", m.GetRequestHeadersToAdd(), discovery.OfRequest),
		RequestRemove:  d.headersToRemove(at, "request_headers_to_remove", m.GetRequestHeadersToRemove()),
		ResponseAdd:    d.headersToAdd(at, "response_headers_to_add", m.GetResponseHeadersToAdd(), discovery.OfResponse),
		ResponseRemove: d.headersToRemove(at, "response_headers_to_remove", m.GetResponseHeadersToRemove()),
	}
}

func (d *decoder) headersToAdd(at path, field string, options []*corev3.HeaderValueOption, side discovery.FormatSide) []discovery.HeaderValue {
	if len(options) == 0 {
		return nil
	}
	values := make([]discovery.HeaderValue, len(options))
	for i, option := range options {
		values[i] = d.headerToAdd(at.element(field, i), option, side)
	}
	return values
}

func (d *decoder) headerToAdd(at path, m *corev3.HeaderValueOption, side discovery.FormatSide) discovery.HeaderValue {
	header := m.GetHeader()
	in := at.field("header")
	raw, valueAt := header.GetValue(), in.field("value")
	if len(header.GetRawValue()) > 0 {
		if raw != "" {
			d.refusef(in.field("raw_value"), "must not be set beside value")
		}
		raw, valueAt = string(header.GetRawValue()), in.field("raw_value")
	}
	value := discovery.HeaderValue{
		Name:      d.mutableHeader(in.field("key"), header.GetKey()),
		Action:    d.headerAction(at, m),
		KeepEmpty: m.GetKeepEmptyValue(),
	}
	value.Value, value.Format = d.headerText(valueAt, raw, side)
	return value
}

// headerText resolves the escapes of Envoy's header formatter. It returns a
// format if the value has commands, which are computed per request.
func (d *decoder) headerText(at path, raw string, side discovery.FormatSide) (string, *discovery.Format) {
	if !httpguts.ValidHeaderFieldValue(raw) {
		d.refusef(at, "is not a valid header value") // which may be a secret
		return "", nil
	}
	format, err := discovery.ParseFormat(raw, side)
	if err != nil {
		d.refusef(at, "%w", err)
		return "", nil
	}
	if text, ok := format.Literal(); ok {
		return text, nil
	}
	return "", format
}

// headerAction decodes append_action, and append, which it replaced.
//
//nolint:staticcheck // the deprecated field is still in use
func (d *decoder) headerAction(at path, m *corev3.HeaderValueOption) discovery.HeaderAction {
	action := discovery.AppendIfExistsOrAdd
	switch m.GetAppendAction() {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		action = discovery.AddIfAbsent
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		action = discovery.OverwriteIfExistsOrAdd
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		action = discovery.OverwriteIfExists
	}
	if m.GetAppend() == nil {
		return action
	}
	if action != discovery.AppendIfExistsOrAdd {
		d.refusef(at.field("append"), "must not be set beside append_action")
	}
	if !m.GetAppend().GetValue() {
		return discovery.OverwriteIfExistsOrAdd
	}
	return action
}

func (d *decoder) headersToRemove(at path, field string, names []string) []string {
	if len(names) == 0 {
		return nil
	}
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = d.mutableHeader(at.element(field, i), name)
	}
	return lower
}

// mutableHeader checks that a header may be added or removed and returns its
// name in lower case. Envoy's documentation forbids to remove pseudo headers
// and host; adding them would go round the rewrites that exist for them, and
// the framing headers belong to the HTTP implementation.
func (d *decoder) mutableHeader(at path, name string) string {
	lower := strings.ToLower(name)
	switch lower {
	case "host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		d.refusef(at, "header %q must not be added or removed", name)
		return lower
	}
	switch {
	case strings.HasPrefix(name, ":"):
		d.refusef(at, "pseudo header %q must not be added or removed", name)
	case !httpguts.ValidHeaderFieldName(name):
		d.refusef(at, "%q is not a valid header name", name)
	}
	return lower
}

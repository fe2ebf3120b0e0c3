package extauthz

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/route"
)

// errInvalid is a change that a service asks for and that cannot be made.
var errInvalid = errors.New("invalid change")

// verdict is what a service has answered.
type verdict struct {
	allowed bool
	// status, headers and body are those of a denial.
	status  int
	headers []filter.Header
	body    []byte

	// The changes to a request that is allowed.
	request     []change
	remove      []string
	response    []change
	setQuery    []param
	removeQuery []string

	metadata map[string]any
}

// change is one header to set.
type change struct {
	name, value string
	action      discovery.HeaderAction
}

type param struct{ name, value string }

// unchangeable are the headers that belong to HTTP itself, and those that say
// where a request goes.
func unchangeable(name string) bool {
	switch name {
	case "host", "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return strings.HasPrefix(name, ":")
}

// check looks at the changes before any of them is made.
func (v *verdict) check() error {
	for _, changes := range [][]change{v.request, v.response} {
		for _, c := range changes {
			if unchangeable(c.name) || !httpguts.ValidHeaderFieldName(c.name) || !httpguts.ValidHeaderFieldValue(c.value) {
				return fmt.Errorf("%w: header %q", errInvalid, c.name)
			}
		}
	}
	return nil
}

// apply changes a request that is allowed.
func (v *verdict) apply(f *Filter, x *filter.Exchange) error {
	if err := v.check(); err != nil {
		return err
	}
	changed := len(v.request) > 0
	for _, name := range v.remove {
		if name = strings.ToLower(name); !unchangeable(name) {
			x.Headers.Del(name)
			changed = true
		}
	}
	for _, c := range v.request {
		c.apply(x.Headers)
	}
	if query := v.query(x.Query); query != x.Query {
		x.Query, changed = query, true
	}
	if !f.config.IgnoreMetadata && len(v.metadata) > 0 {
		x.SetMetadata(Namespace, v.metadata)
	}
	if len(v.response) > 0 {
		x.Respond(func(_ int, h route.HeaderMap) {
			for _, c := range v.response {
				c.apply(h)
			}
		})
	}
	if changed && f.config.ClearRoute {
		x.ClearRoute()
	}
	return nil
}

func (c *change) apply(h route.HeaderMap) {
	switch c.action {
	case discovery.AppendIfExistsOrAdd:
		h.Add(c.name, c.value)
	case discovery.AddIfAbsent:
		if len(h.Values(c.name)) == 0 {
			h.Add(c.name, c.value)
		}
	case discovery.OverwriteIfExistsOrAdd:
		h.Set(c.name, c.value)
	case discovery.OverwriteIfExists:
		if len(h.Values(c.name)) > 0 {
			h.Set(c.name, c.value)
		}
	}
}

// query is the query with the changes; what is not changed stays as it is.
func (v *verdict) query(query string) string {
	drop := make(map[string]bool)
	for _, name := range v.removeQuery {
		drop[name] = true
	}
	for _, p := range v.setQuery {
		drop[p.name] = true
	}
	if len(drop) == 0 {
		return query
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err == nil {
			key = decoded
		}
		if pair != "" && !drop[key] {
			kept = append(kept, pair)
		}
	}
	for _, p := range v.setQuery {
		kept = append(kept, url.QueryEscape(p.name)+"="+url.QueryEscape(p.value))
	}
	return strings.Join(kept, "&")
}

// deny is the denial of a service. One with the status of a success would be
// taken for the application's.
func (v *verdict) deny(status int, body []byte) {
	if status != 0 && (status < http.StatusMultipleChoices || status > 599) {
		status = http.StatusForbidden
	}
	v.status, v.body = status, body
}

// addHeader adds a header of a denial. Those that belong to the service's own
// response are left out, and those that cannot be written.
func (v *verdict) addHeader(name, value string) {
	name = strings.ToLower(name)
	if !unchangeable(name) && httpguts.ValidHeaderFieldName(name) && httpguts.ValidHeaderFieldValue(value) {
		v.headers = append(v.headers, filter.Header{Name: name, Value: value})
	}
}

package extauthz

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter"
	"github.com/inboardmesh/inboard/internal/filter/service"
)

const (
	// maxAnswer is how many bytes an answer of a service may have.
	maxAnswer = 1 << 20
	// partialHeader tells a service whether it got the whole body.
	partialHeader = "x-envoy-auth-partial-body"
	// removeHeader is where an HTTP service lists headers to remove.
	removeHeader = "x-envoy-auth-headers-to-remove"
)

// keyed is what the headers of a request are; both protocols' have it.
type keyed interface{ Keys() []string }

// headerNames are the names of the request's headers, in lower case and sorted.
func headerNames(x *filter.Exchange) []string {
	k, ok := x.Header.(keyed)
	if !ok {
		return nil
	}
	names := k.Keys()
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	slices.Sort(lower)
	return slices.Compact(lower)
}

func matches(list []discovery.StringMatch, name string) bool {
	return slices.ContainsFunc(list, func(m discovery.StringMatch) bool { return m.Matches(name) })
}

// checkHTTP asks a service with the request itself.
func (f *Filter) checkHTTP(ctx context.Context, x *filter.Exchange, b body) (*verdict, error) {
	c := f.config.HTTP
	target := c.PathPrefix + x.PathAndQuery()
	if c.PathOverride != "" {
		target = c.PathOverride
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, fmt.Errorf("%w: path: %w", errUnaskable, err)
	}
	if x.Host == "" || !httpguts.ValidHostHeader(x.Host) {
		return nil, fmt.Errorf("%w: host %q", errUnaskable, x.Host)
	}
	u.Scheme, u.Host = "http", x.Host
	req, err := http.NewRequestWithContext(ctx, x.Method, u.String(), bytes.NewReader(b.data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnaskable, err)
	}
	for _, name := range headerNames(x) {
		allowed := name == "authorization" || matches(f.config.AllowedHeaders, name) || matches(c.AllowedHeaders, name)
		if !allowed || unchangeable(name) || name == partialHeader || matches(f.config.DisallowedHeaders, name) {
			continue
		}
		values := x.Header.Values(name)
		if i := slices.IndexFunc(values, func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }); i >= 0 {
			return nil, fmt.Errorf("%w: header %q", errUnaskable, name)
		}
		req.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	if b.read {
		req.Header.Set("X-Envoy-Auth-Partial-Body", strconv.FormatBool(b.partial))
	}
	for _, h := range c.HeadersToAdd {
		req.Header.Set(h.Name, h.Value)
	}
	resp, err := f.caller.Do(ctx, c.Cluster, req, maxAnswer, c.Secure)
	if err != nil {
		return nil, err
	}
	if resp.Status >= http.StatusInternalServerError {
		return nil, service.Because(service.Status, fmt.Errorf("the service answered %d", resp.Status))
	}
	v := &verdict{allowed: resp.Status == http.StatusOK}
	if !v.allowed {
		v.deny(resp.Status, resp.Body)
	}
	for name, values := range resp.Header {
		v.take(c, strings.ToLower(name), values)
	}
	return v, nil
}

// take reads a header of the service's answer.
func (v *verdict) take(c *discovery.AuthzHTTP, name string, values []string) {
	if matches(c.MetadataHeaders, name) {
		if v.metadata == nil {
			v.metadata = make(map[string]any)
		}
		v.metadata[name] = strings.Join(values, ",")
	}
	if !v.allowed {
		always := name == "www-authenticate" || name == "location"
		if c.ClientHeaders == nil || always || matches(c.ClientHeaders, name) {
			for _, value := range values {
				v.addHeader(name, value)
			}
		}
		return
	}
	if name == removeHeader {
		for _, value := range values {
			for one := range strings.SplitSeq(value, ",") {
				v.remove = append(v.remove, strings.TrimSpace(one))
			}
		}
		return
	}
	if unchangeable(name) {
		return // of the service's own response
	}
	if matches(c.UpstreamHeaders, name) {
		v.request = append(v.request, changes(name, values, discovery.OverwriteIfExistsOrAdd)...)
	}
	if matches(c.UpstreamHeadersToAppend, name) {
		v.request = append(v.request, changes(name, values, discovery.AppendIfExistsOrAdd)...)
	}
	if matches(c.ClientHeadersOnSuccess, name) {
		v.response = append(v.response, changes(name, values, discovery.OverwriteIfExistsOrAdd)...)
	}
}

// changes sets all values of a header: the first as asked for, the others
// beside it.
func changes(name string, values []string, first discovery.HeaderAction) []change {
	list := make([]change, len(values))
	for i, value := range values {
		list[i] = change{name: name, value: value, action: discovery.AppendIfExistsOrAdd}
	}
	if len(list) > 0 {
		list[0].action = first
	}
	return list
}

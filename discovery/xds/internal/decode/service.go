package decode

import (
	"net/url"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// serviceFields are those of the services that filters call.
var serviceFields = []messageFields{
	{message: (*corev3.HttpUri)(nil), read: "uri cluster timeout"},
	{message: (*corev3.RetryPolicy)(nil), read: "retry_back_off num_retries"},
	{message: (*corev3.BackoffStrategy)(nil), read: "base_interval max_interval"},
}

const (
	defaultServiceBackoff = time.Second
	maxServiceRetries     = 10
)

// serviceURI takes the URI of a service of a filter apart. Where requests go is
// said by a cluster; the URI is what they say.
func (d *decoder) serviceURI(at path, uri string) (scheme, host, target string) {
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		d.refusef(at, "%q is not a URI", uri)
		return "", "", ""
	case u.Scheme != "http" && u.Scheme != "https":
		d.refusef(at, "%q must begin with http:// or https://", uri)
	case u.Host == "":
		d.refusef(at, "%q has no host", uri)
	case u.User != nil:
		d.refusef(at, "must not have a user: it is not sent")
	case u.Fragment != "":
		d.refusef(at, "%q must not have a fragment: it is not sent", uri)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.Scheme, u.Host, u.RequestURI()
}

// serviceRetries decodes the retry policy of a service of a filter.
func (d *decoder) serviceRetries(at path, m *corev3.RetryPolicy) (retries int, base, longest time.Duration) {
	retries, base = 1, defaultServiceBackoff
	if n := m.GetNumRetries(); n != nil {
		retries = int(n.GetValue())
		if n.GetValue() > maxServiceRetries {
			d.refusef(at.field("num_retries"), "%d is too many: must not be more than %d", n.GetValue(), maxServiceRetries)
			retries = 0
		}
	}
	in := at.field("retry_back_off")
	if interval := m.GetRetryBackOff().GetBaseInterval(); interval != nil {
		base = d.duration(in.field("base_interval"), interval)
	}
	longest = 10 * base
	if interval := m.GetRetryBackOff().GetMaxInterval(); interval != nil {
		longest = d.duration(in.field("max_interval"), interval)
		if longest < base {
			d.refusef(in.field("max_interval"), "%v must not be less than base_interval, %v", longest, base)
		}
	}
	return retries, base, longest
}

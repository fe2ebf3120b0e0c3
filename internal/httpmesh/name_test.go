package httpmesh

import (
	"net"
	"net/http"
	"net/url"
	"reflect"
	"testing"
)

func TestTargetNameIsThatOfJoinHostPort(t *testing.T) {
	t.Parallel()
	hosts := []string{
		"payment.shop", "payment.shop:", "payment.shop:8080", "10.0.0.1", "10.0.0.1:8080",
		"[::1]", "[::1]:", "[::1]:8080", "[fe80::1%25eth0]", "Payment.Shop",
	}
	for _, scheme := range []string{"http", "https"} {
		for _, host := range hosts {
			u, err := url.Parse(scheme + "://" + host + "/charge")
			if err != nil {
				t.Fatal(err)
			}
			want := u.Host
			if u.Port() == "" {
				want = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[scheme])
			}
			if got := string(appendTargetName(nil, u)); got != want {
				t.Errorf("%s://%s: %q, want %q", scheme, host, got, want)
			}
		}
	}
}

// What is set on an attempt's headers reads as if it had been set on an
// http.Header, however much it is, and however the name is written.
func TestOutgoingHeadersAreAnHTTPHeader(t *testing.T) {
	t.Parallel()
	names := []string{"traceparent", "tracestate", "baggage", "Traceparent", "x-b3-traceid", "X-B3-SpanId", "traceparent", "not a token"}
	want := http.Header{"Accept": {"*/*"}}
	got := &outgoing{header: header(copyHeader(want))}
	for i, name := range names {
		value := string(rune('a' + i))
		want.Set(name, value)
		got.Set(name, value)
		if got.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Get(name), value)
		}
	}
	got.Add("Traceparent", "more")
	want.Add("Traceparent", "more")
	got.Del("Baggage")
	want.Del("Baggage")
	if !reflect.DeepEqual(http.Header(got.header), want) {
		t.Errorf("%v, want %v", got.header, want)
	}
}

// A value that is added to one header must not show up in another.
func TestValuesOfOutgoingHeadersDoNotTouch(t *testing.T) {
	t.Parallel()
	o := &outgoing{header: header(copyHeader(nil))}
	o.Set("traceparent", "first")
	o.Set("tracestate", "second")
	o.Add("traceparent", "added")
	if o.Get("tracestate") != "second" || len(o.Values("traceparent")) != 2 {
		t.Errorf("%v", o.header)
	}
}

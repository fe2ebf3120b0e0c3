package route

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery"
)

func TestBU8_TheHostOfACopySaysWhatItIs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		mirror discovery.Mirror
		host   string
		want   string
	}{
		{name: "a host", host: "payment.shop", want: "payment.shop-shadow"},
		{name: "a host and a port", host: "payment.shop:8080", want: "payment.shop-shadow:8080"},
		{name: "an IPv4 address", host: "10.0.0.1:80", want: "10.0.0.1-shadow:80"},
		{name: "an IPv6 address cannot say it", host: "[::1]:80", want: "[::1]:80"},
		{name: "no suffix", mirror: discovery.Mirror{KeepHost: true}, host: "payment.shop:80", want: "payment.shop:80"},
		{name: "another host", mirror: discovery.Mirror{Host: "shadow.shop"}, host: "payment.shop:80", want: "shadow.shop"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := DrawnMirror{mirror: &tt.mirror}
			if got := m.Host(tt.host); got != tt.want {
				t.Errorf("host %q, want %q", got, tt.want)
			}
		})
	}
}

func TestBU8_MirrorsAreDrawn(t *testing.T) {
	t.Parallel()
	const million = 1_000_000
	drawn := func(mirrors []discovery.Mirror, h headers) []DrawnMirror {
		r := to("v1", discovery.RouteMatch{})
		r.Forward.Mirrors = mirrors
		req := get("payment.shop", "/")
		req.Header = h
		d, ok := matching(r).Match(req)
		if !ok {
			t.Fatal("no route")
		}
		return d.Mirrors(req)
	}
	if got := drawn(nil, nil); got != nil {
		t.Errorf("without mirrors %v are drawn", got)
	}
	both := []discovery.Mirror{{Cluster: "a", PerMillion: million}, {Header: "x-shadow", PerMillion: million}}
	if got := drawn(both, nil); len(got) != 1 || got[0].Cluster != "a" {
		t.Errorf("without the header %v are drawn", got)
	}
	if got := drawn(both, headers{"x-shadow": {"b", "c"}}); len(got) != 2 || got[1].Cluster != "b" {
		t.Errorf("with the header %v are drawn", got)
	}
	// 4 standard deviations of 10,000 draws of 20 % are 160.
	const n, want, tolerance = 10_000, 2000, 160
	got := 0
	for range n {
		got += len(drawn([]discovery.Mirror{{Cluster: "a", PerMillion: million / 5}}, nil))
	}
	if got < want-tolerance || got > want+tolerance {
		t.Errorf("%d of %d are copied, want about %d", got, n, want)
	}
}

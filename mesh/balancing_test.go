package mesh

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/balancer"
)

func TestBalancersMustHaveNames(t *testing.T) {
	t.Parallel()
	picker := func([]*balancer.Host, map[string]any) balancer.Picker { return nil }
	type policy = func([]*balancer.Host, map[string]any) balancer.Picker
	named := func(name string, p policy) Option { return Balancing{Policies: map[string]policy{name: p}} }
	for name, option := range map[string]Option{
		`balancer "": must have`: named("", picker), `balancer "inboard.x": must have`: named("inboard.x", picker),
		`balancer "a": must have`: named("a", nil),
	} {
		if _, err := newSettings([]Option{option}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %s", err, name)
		}
	}
}

func TestOptionsThatAreStructsAddToEachOther(t *testing.T) {
	t.Parallel()
	picker := func([]*balancer.Host, map[string]any) balancer.Picker { return nil }
	type policies = map[string]func([]*balancer.Host, map[string]any) balancer.Picker
	own := policies{"a": picker}
	dial := (&net.Dialer{}).DialContext
	s := &settings{}
	for _, o := range []Option{
		Balancing{Policies: own, LocalCluster: "cart"}, Balancing{Policies: policies{"b": picker}, ClientNumber: new(uint32(0))}, Balancing{},
		Network{Transport: &http.Transport{MaxIdleConns: 7}}, Network{Dial: dial}, Network{},
	} {
		o.apply(s)
	}
	if got := len(s.balancing.custom(slog.Default())); got != 2 || len(own) != 1 {
		t.Errorf("%d policies, the application's map has %d, want 2 and 1", got, len(own))
	}
	if n, known := s.balancing.number(); n != 0 || !known || s.balancing.LocalCluster != "cart" {
		t.Errorf("number %d, known: %t, local cluster %q, want 0, true, cart", n, known, s.balancing.LocalCluster)
	}
	if s.network.Dial == nil || s.network.Transport == nil || s.network.Transport.MaxIdleConns != 7 {
		t.Errorf("%+v, want both the dialer and the transport", s.network)
	}
}

package relay

import (
	"testing"

	"github.com/inboardmesh/inboard/discovery/bootstrap"
)

func TestNamesOfGuestsAreUnderstoodInEveryForm(t *testing.T) {
	t.Parallel()
	const listeners = "xdstp://far/envoy.config.listener.v3.Listener/"
	plain := &bootstrap.Config{Authorities: map[string]bootstrap.Authority{"far": {}, "own": {ClientListenerTemplate: "xdstp://own/envoy.config.listener.v3.Listener/out/%s"}}}
	federated := &bootstrap.Config{
		Authorities:            plain.Authorities,
		ClientListenerTemplate: listeners + "client/%s?a=1", ServerListenerTemplate: listeners + "server/%s",
	}
	for _, tt := range []struct {
		config *bootstrap.Config
		name   string
		of     string
		server bool
	}{
		{plain, "payment:90", "payment:90", false},
		{plain, "100%41", "100%41", false}, // no such name is escaped
		{plain, listeners + "payment:90", "//far/payment:90", false},
		{plain, listeners + "%5B::1%5D:90", "//far/[::1]:90", false},
		{plain, "xdstp://own/envoy.config.listener.v3.Listener/out/payment:90", "//own/payment:90", false},
		{plain, "xds.istio.io/grpc/lds/inbound/[::]:90", "[::]:90", true},
		{federated, listeners + "client/%5B::1%5D:90?a=1", "[::1]:90", false},
		{federated, listeners + "other:90", "//far/other:90", false},
		{federated, listeners + "server/%5B::%5D:90", "[::]:90", true},
		{federated, listeners + "server/[::]:90", "[::]:90", true},
	} {
		r := &Relay{options: Options{Config: tt.config}}
		if of, server := r.destination(tt.name); of != tt.of || server != tt.server {
			t.Errorf("destination(%q) = %q, %v, want %q, %v", tt.name, of, server, tt.of, tt.server)
		}
	}
}

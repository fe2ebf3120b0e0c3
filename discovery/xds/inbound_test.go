package xds

import (
	"errors"
	"slices"
	"testing"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/discovery/xds/internal/decode"
)

const (
	listenAddress = "0.0.0.0:8080"
	listenName    = "inbound/" + listenAddress
)

func (w *world) watchInbound() (*recorder[*discovery.Inbound], func()) {
	r := &recorder[*discovery.Inbound]{}
	return r, newInbound(listenAddress, listenName, w, w.publisher, r.notify).stop
}

// serverResource returns a Listener with a chain per route table; a name "" is
// an inline table. The last one is the default chain.
func serverResource(routeNames ...string) *decode.ListenerResource {
	in := &discovery.Inbound{Name: listenName, Address: listenAddress}
	for i, name := range routeNames {
		chain := discovery.FilterChain{RouteName: name}
		if name == "" {
			chain.Routes = &discovery.RouteTable{Name: "inline"}
		}
		if i == len(routeNames)-1 {
			in.Default = &chain
		} else {
			in.Chains = append(in.Chains, chain)
		}
	}
	return &decode.ListenerResource{Inbound: in}
}

func TestX73_AListenerIsNotPublishedWithoutItsRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchInbound()
	w.set(serverResource("r1", "", "r2"))
	w.pump()
	published.none(t)
	w.fail(rds("r1"), notFound(rds("r1")), true)
	w.pump()
	if update := published.one(t); update.Value != nil || update.Err == nil || errors.Is(update.Err, discovery.ErrNotFound) {
		t.Errorf("published %+v, want the table's error without ErrNotFound", update)
	}
	w.set(routeTable("r1"))
	w.set(routeTable("r2"))
	w.pump()
	update := published.one(t)
	if update.Err != nil || update.Value == nil {
		t.Fatalf("published %+v", update)
	}
	in := update.Value
	if in.Chains[0].Routes != w.values[rds("r1")] || in.Chains[1].Routes.Name != "inline" || in.Default.Routes != w.values[rds("r2")] {
		t.Errorf("published %+v, want each chain with its table", in)
	}
	if base := w.values[lds(listenName)].(*decode.ListenerResource).Inbound; base.Chains[0].Routes != nil || base.Default.Routes != nil {
		t.Error("the decoded resource was changed")
	}

	// A new table is taken over, a new listener waits for its tables.
	w.set(routeTable("r2"))
	w.pump()
	if update := published.one(t); update.Value.Default.Routes != w.values[rds("r2")] {
		t.Errorf("published %+v, want the new table", update)
	}
	w.set(serverResource("r2", "r3"))
	w.pump()
	published.none(t)
	if got := w.watched(decode.RouteURL); !slices.Equal(got, []string{"r2", "r3"}) {
		t.Errorf("tables %q are watched", got)
	}
	w.set(routeTable("r3"))
	w.pump()
	if update := published.one(t); update.Value.Default.Routes.Name != "r3" || len(update.Value.Chains) != 1 {
		t.Errorf("published %+v, want the new listener", update)
	}

	// What is in force and withdrawn by the server stops serving.
	w.fail(rds("r3"), notFound(rds("r3")), true)
	w.pump()
	if update := published.one(t); update.Value != nil || update.Err == nil {
		t.Errorf("published %+v, want nothing to serve", update)
	}
	stop()
	w.pump()
	if len(w.watchers) != 0 {
		t.Errorf("still watched after stop: %v", w.watchers)
	}
	published.none(t)
}

func TestAListenerWithInlineRoutesIsPublishedAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld()
	published, stop := w.watchInbound()
	defer stop()
	resource := serverResource("", "")
	w.set(resource)
	w.pump()
	if update := published.one(t); update.Value != resource.Inbound || update.Err != nil {
		t.Errorf("published %+v", update)
	}
	w.fail(lds(listenName), offline(lds(listenName)), false)
	w.pump()
	if update := published.one(t); update.Value != resource.Inbound || update.Err == nil {
		t.Errorf("published %+v, want the same listener with an error", update)
	}
	w.fail(lds(listenName), notFound(lds(listenName)), true)
	w.pump()
	if update := published.one(t); update.Value != nil || !errors.Is(update.Err, discovery.ErrNotFound) {
		t.Errorf("published %+v, want ErrNotFound", update)
	}
}

func TestAListenerOfTheWrongKindIsRefused(t *testing.T) {
	t.Parallel()
	other := serverResource("")
	other.Inbound.Address = "0.0.0.0:9090"
	for _, tt := range []struct {
		name     string
		resource *decode.ListenerResource
		want     string
	}{
		{"for another address", other,
			`the Listener "inbound/0.0.0.0:8080" has the address "0.0.0.0:9090", this process listens on "0.0.0.0:8080"`},
		{"for a destination", &decode.ListenerResource{Outbound: &discovery.APIListener{Name: listenName}},
			`the Listener "inbound/0.0.0.0:8080" is for calls to a destination: expected one with an address`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.set(tt.resource)
			published, stop := w.watchInbound()
			defer stop()
			w.pump()
			if update := published.one(t); update.Value != nil || update.Err == nil || update.Err.Error() != tt.want {
				t.Errorf("published %+v\nwant %s", update, tt.want)
			}
		})
	}
}

func TestSameAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"0.0.0.0:80", "0.0.0.0:80", true},
		{"0.0.0.0:80", "[::]:80", true},
		{"10.0.0.1:80", "[::ffff:10.0.0.1]:80", true},
		{"0.0.0.0:80", "0.0.0.0:81", false},
		{"0.0.0.0:80", "127.0.0.1:80", false},
		{"payment", "payment", true},
		{"payment:80", "0.0.0.0:80", false},
	} {
		if got := sameAddress(tt.a, tt.b); got != tt.want {
			t.Errorf("sameAddress(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}

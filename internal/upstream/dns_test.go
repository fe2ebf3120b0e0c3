package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/balancer"
	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/observe"
)

// nameServer is a resolver in memory.
type nameServer struct {
	mu      sync.Mutex
	answers map[string][]string // guarded by mu; by network and name, "ip4 a.example"
	asked   []time.Duration     // guarded by mu; since the start
	start   time.Time
	hang    bool // guarded by mu
}

var errNoSuchHost = errors.New("no such host")

func (n *nameServer) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	n.asked = append(n.asked, time.Since(n.start))
	texts, hang := n.answers[network+" "+host], n.hang
	n.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var found []netip.Addr
	for _, text := range texts {
		found = append(found, netip.MustParseAddr(text))
	}
	if len(found) == 0 {
		return nil, errNoSuchHost
	}
	return found, nil
}

func (n *nameServer) set(name string, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[name] = addresses
}

func (n *nameServer) questions() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

// namedWorld is a world with a resolver.
func namedWorld(t *testing.T) (*world, *nameServer) {
	t.Helper()
	w := newWorld(t)
	n := &nameServer{answers: make(map[string][]string), start: time.Now()}
	w.manager.options.Lookup = n.lookup
	return w, n
}

// named makes a cluster one of type DNS.
func named(dns discovery.DNS) func(*discovery.Cluster) {
	return func(c *discovery.Cluster) {
		if dns.Refresh == 0 {
			dns.Refresh = 5 * time.Second
		}
		c.DNS = &dns
	}
}

func expectAddresses(t *testing.T, c *Cluster, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for e := range c.Endpoints {
		got = append(got, e.Address())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("endpoints %q, want %q", got, want)
	}
}

func TestEveryAddressOfANameIsAnEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.set("ip4 a.example", "10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1")
		n.set("ip4 b.example", "10.0.0.1")
		c := w.hold(result(named(discovery.DNS{Family: discovery.DNSV4Only}), "a.example:80", "b.example:80", "a.example:81", "10.0.0.9:80"))
		expectAddresses(t, c, "10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.2:81", "10.0.0.9:80")
		if got := endpoint(t, c, "10.0.0.2:80").Hostname(); got != "a.example" {
			t.Errorf("the endpoint's name is %q", got)
		}
		kept := endpoint(t, c, "10.0.0.2:80")
		n.set("ip4 a.example", "10.0.0.3", "10.0.0.2")
		time.Sleep(5 * time.Second)
		expectAddresses(t, c, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:81", "10.0.0.3:80", "10.0.0.3:81", "10.0.0.9:80")
		if endpoint(t, c, "10.0.0.2:80") != kept {
			t.Error("an address that stays is another endpoint")
		}
	})
}

// TestEveryQuestionIsReported, good and bad, with what was asked.
func TestEveryQuestionIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		var mu sync.Mutex
		var events []observe.ResolveEvent
		w.manager.options.Hooks.NameResolved = func(e observe.ResolveEvent) { record(&mu, &events, e) }
		n.set("ip4 a.example", "10.0.0.1", "10.0.0.2")
		w.hold(result(named(discovery.DNS{Family: discovery.DNSV4Only, Refresh: time.Hour}), "a.example:80"))
		synctest.Wait()
		n.set("ip4 a.example")
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(events) != 2 || events[0] != (observe.ResolveEvent{Cluster: "payment", Host: "a.example", Addresses: 2}) ||
			!errors.Is(events[1].Err, errNoSuchHost) || events[1].Addresses != 0 {
			t.Errorf("events %+v", events)
		}
	})
}

func TestTheLastGoodAnswerHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.set("ip4 a.example", "10.0.0.1")
		edit := named(discovery.DNS{Family: discovery.DNSV4Only})
		c := w.hold(result(edit, "a.example:80"))
		expectAddresses(t, c, "10.0.0.1:80")
		n.set("ip4 a.example")
		time.Sleep(time.Minute)
		expectAddresses(t, c, "10.0.0.1:80")
		// Other settings do not forget it either.
		w.hold(result(named(discovery.DNS{Family: discovery.DNSV4Only, Refresh: time.Second}), "a.example:80", "b.example:80"))
		expectAddresses(t, c, "10.0.0.1:80")
	})
}

func TestANameWithoutAnAnswerSaysSo(t *testing.T) {
	t.Parallel()
	for _, logical := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w, n := namedWorld(t)
			c := w.hold(result(named(discovery.DNS{Logical: logical}), "a.example:80"))
			if err := c.Await(t.Context()); err != nil {
				t.Fatal(err)
			}
			e, err := c.Pick(balancer.PickInfo{})
			if logical && err == nil {
				_, err = e.Dial(t.Context(), e.Address())
			}
			if !errors.Is(err, errNoSuchHost) {
				t.Errorf("logical %t: error %v", logical, err)
			}
			if got := len(n.questions()); got != 2 { // of IPv6, then of IPv4
				t.Errorf("%d questions", got)
			}
		})
	}
}

func TestFamiliesOfAddresses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		family discovery.DNSFamily
		have   map[string][]string
		want   []string
	}{
		{"auto takes IPv6", discovery.DNSAuto, map[string][]string{"ip6 a": {"fd00::1"}, "ip4 a": {"10.0.0.1"}}, []string{"[fd00::1]:80"}},
		{"auto falls back to IPv4", discovery.DNSAuto, map[string][]string{"ip4 a": {"10.0.0.1"}}, []string{"10.0.0.1:80"}},
		{"IPv4 only", discovery.DNSV4Only, map[string][]string{"ip6 a": {"fd00::1"}}, nil},
		{"IPv6 only", discovery.DNSV6Only, map[string][]string{"ip4 a": {"10.0.0.1"}}, nil},
		{"IPv4 is preferred", discovery.DNSV4Preferred, map[string][]string{"ip6 a": {"fd00::1"}, "ip4 a": {"10.0.0.1"}}, []string{"10.0.0.1:80"}},
		{"IPv4 is preferred, but there is none", discovery.DNSV4Preferred, map[string][]string{"ip6 a": {"fd00::1"}}, []string{"[fd00::1]:80"}},
		{"all", discovery.DNSAll, map[string][]string{"ip a": {"fd00::1", "10.0.0.1"}}, []string{"10.0.0.1:80", "[fd00::1]:80"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, n := namedWorld(t)
				for name, addresses := range tt.have {
					n.set(name, addresses...)
				}
				expectAddresses(t, w.hold(result(named(discovery.DNS{Family: tt.family}), "a:80")), tt.want...)
			})
		})
	}
}

func TestWhenANameIsAskedForAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		dns  discovery.DNS
		good bool
		want func(gap time.Duration, failures int) bool
	}{
		{"after a good answer", discovery.DNS{Refresh: 3 * time.Second}, true, func(gap time.Duration, _ int) bool { return gap == 3*time.Second }},
		{"with jitter", discovery.DNS{Refresh: 3 * time.Second, Jitter: time.Second}, true, func(gap time.Duration, _ int) bool {
			return gap >= 3*time.Second && gap < 4*time.Second
		}},
		{"after a failure as after an answer", discovery.DNS{Refresh: 3 * time.Second}, false, func(gap time.Duration, _ int) bool { return gap == 3*time.Second }},
		{"after failures, ever later", discovery.DNS{Refresh: time.Hour, FailureBase: time.Second, FailureMax: 3 * time.Second}, false,
			func(gap time.Duration, failures int) bool {
				return gap <= min(time.Second<<(failures-1), 3*time.Second)
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, n := namedWorld(t)
				tt.dns.Family = discovery.DNSV4Only
				if tt.good {
					n.set("ip4 a", "10.0.0.1")
				}
				w.hold(result(named(tt.dns), "a:80"))
				time.Sleep(30 * time.Second)
				asked := n.questions()
				if len(asked) < 7 {
					t.Fatalf("%d questions", len(asked))
				}
				for i := 1; i < len(asked); i++ {
					if gap := asked[i] - asked[i-1]; !tt.want(gap, i) {
						t.Errorf("question %d came %v after the one before", i, gap)
					}
				}
			})
		})
	}
}

func TestTheFirstCallWaitsForAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.hang = true // nobody asks yet
		c := w.hold(result(named(discovery.DNS{}), "a:80"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		start := time.Now()
		if err := c.Await(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != lookupTimeout-time.Second {
			t.Errorf("a resolver that hangs was waited for for %v", took)
		}
	})
}

func TestNobodyWaitsLongerThanTheManagerLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.hang = true // nobody asks yet
		c := w.hold(result(named(discovery.DNS{}), "a:80"))
		time.AfterFunc(time.Second, w.manager.Close)
		if err := c.Await(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
	})
}

func TestAClusterThatIsGoneAsksNoMore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.set("ip6 a", "fd00::1")
		held := w.manager.Hold(result(named(discovery.DNS{}), "a:80"))
		expectAddresses(t, held["payment"], "[fd00::1]:80")
		w.manager.Release(held)
		before := len(n.questions())
		time.Sleep(time.Minute)
		if after := len(n.questions()); after != before {
			t.Errorf("%d questions of a cluster that nobody holds", after-before)
		}
	})
}

// TestALogicalNameIsOneEndpoint: its new connections go to what the name stands for
// when they are made, the open ones stay.
func TestALogicalNameIsOneEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		who := func(name string) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, name) }
		}
		w.serve("10.0.0.1:80", who("one"))
		w.serve("10.0.0.2:80", who("two"))
		n.set("ip4 a.example", "10.0.0.7", "10.0.0.1") // nobody is at the first
		c := w.hold(result(named(discovery.DNS{Logical: true, Family: discovery.DNSV4Only}), "a.example:80"))
		expectAddresses(t, c, "a.example:80")
		e := endpoint(t, c, "a.example:80")
		call := func(want string) {
			t.Helper()
			resp, failure := e.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
			if failure != nil {
				t.Fatal(failure.Err)
			}
			if got := read(t, resp); got != want {
				t.Errorf("answered by %s, want %s", got, want)
			}
		}
		call("one")
		n.set("ip4 a.example", "10.0.0.2")
		time.Sleep(6 * time.Second)
		call("one") // by the connection that is open
		e.renew()
		call("two")
	})
}

func TestAHangingAddressLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		w.serve("10.0.0.2:80", answer)
		w.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "10.0.0.1:") {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.network.DialContext(ctx, network, address)
		}
		n.set("ip4 a", "10.0.0.1", "10.0.0.2")
		c := w.hold(result(named(discovery.DNS{Logical: true, Family: discovery.DNSV4Only}), "a:80"))
		expectAddresses(t, c, "a:80")
		get(t, endpoint(t, c, "a:80"))
	})
}

func TestEndpointsTellThatTheyHaveLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, n := namedWorld(t)
		n.set("ip4 a", "10.0.0.1")
		c := w.hold(result(named(discovery.DNS{Family: discovery.DNSV4Only}), "a:80"))
		expectAddresses(t, c, "10.0.0.1:80")
		left := make(chan struct{})
		endpoint(t, c, "10.0.0.1:80").AfterLeaving(func() { close(left) })
		n.set("ip4 a", "10.0.0.2")
		start := time.Now()
		<-left
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("after %v", took)
		}
	})
}

package upstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/memnet"
	"github.com/inboardmesh/inboard/outcome"
)

func TestBL12_FamiliesTakeTurns(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		families   discovery.Families
		have, want string
	}{
		"one family":                   {have: "4a 4b 4c", want: "4a 4b 4c"},
		"the first address decides":    {have: "4a 4b 6a 6b", want: "4a 6a 4b 6b"},
		"the first address is of IPv6": {have: "6a 6b 6c 4a", want: "6a 4a 6b 6c"},
		"what is left keeps its order": {have: "4a 6a 6b 6c", want: "4a 6a 6b 6c"},
		"a family that is asked for":   {families: discovery.Families{First: discovery.IPv6}, have: "4a 4b 6a 6b", want: "6a 4a 6b 4b"},
		"one that none is of":          {families: discovery.Families{First: discovery.IPv6}, have: "4a 4b", want: "4a 4b"},
		"two of the first family":      {families: discovery.Families{Count: 2}, have: "4a 4b 4c 6a 6b", want: "4a 4b 6a 4c 6b"},
		"more of it than there are":    {families: discovery.Families{First: discovery.IPv6, Count: 9}, have: "4a 4b 6a 6b", want: "6a 6b 4a 4b"},
		"IPv4 within IPv6 is IPv4":     {have: "4a m 6a", want: "4a 6a m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full := map[string]string{"m": "[::ffff:10.0.0.9]:80"}
			for _, c := range "abc" {
				full["4"+string(c)], full["6"+string(c)] = "10.0.0."+string(c-'a'+'1')+":80", "[fd00::"+string(c)+"]:80"
			}
			var addresses []string
			for short := range strings.FieldsSeq(tt.have) {
				addresses = append(addresses, full[short])
			}
			var got []string
			for _, a := range inTurn(addresses, tt.families) {
				for short, long := range full {
					if long == a {
						got = append(got, short)
					}
				}
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("%s is tried as %s, want %s", tt.have, text, tt.want)
			}
		})
	}
}

// eyes is an endpoint with four addresses, of which each answers as it is told.
type eyes struct {
	*world
	endpoint *Endpoint
	begin    time.Time

	mu     sync.Mutex
	tried  []string          // guarded by mu; when and what
	opened []*memnet.Mutable // guarded by mu
	behave map[string]string
}

const (
	v4a, v4b = "10.0.0.1:80", "10.0.0.2:80"
	v6a, v6b = "[fd00::1]:80", "[fd00::2]:80"
)

func newEyes(t *testing.T, behave map[string]string) *eyes {
	t.Helper()
	y := &eyes{world: newWorld(t), behave: behave, begin: time.Now()}
	for address, how := range behave {
		if how != "refuses" && how != "silent" {
			y.serve(address, answer)
		}
	}
	y.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		y.mu.Lock()
		y.tried = append(y.tried, time.Since(y.begin).String()+" "+address)
		y.mu.Unlock()
		switch how := behave[address]; how {
		case "refuses":
			return nil, errors.New(address + " refuses")
		case "silent":
			<-ctx.Done()
			return nil, context.Cause(ctx)
		default:
			if wait, err := time.ParseDuration(how); err == nil {
				time.Sleep(wait) // whatever becomes of ctx, as an application's dialer may
			}
			c, err := y.network.DialContext(context.WithoutCancel(ctx), network, address)
			if err != nil {
				return nil, err
			}
			m := memnet.NewMutable(c)
			y.mu.Lock()
			y.opened = append(y.opened, m)
			y.mu.Unlock()
			return m, nil
		}
	}
	results := result(func(c *discovery.Cluster) { c.ConnectTimeout = 2 * time.Second }, v4a)
	results["payment"].Endpoints.Localities[0].Endpoints[0].Additional = []string{v4b, v6a, v6b}
	y.endpoint = endpoint(t, y.hold(results), v4a)
	return y
}

func TestBL12_TheFirstAddressThatAnswersIsUsed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		behave map[string]string
		tried  []string
		took   time.Duration
		fails  string
	}{
		"the first answers": {map[string]string{v4a: "0s"}, []string{"0s " + v4a}, 0, ""},
		"those that refuse cost no time": {
			map[string]string{v4a: "refuses", v6a: "refuses", v4b: "0s"},
			[]string{"0s " + v4a, "0s " + v6a, "0s " + v4b}, 0, "",
		},
		"silent ones cost a quarter of a second each": {
			map[string]string{v4a: "silent", v6a: "silent", v4b: "0s"},
			[]string{"0s " + v4a, "250ms " + v6a, "500ms " + v4b}, 500 * time.Millisecond, "",
		},
		"one that is late is the first all the same": {
			map[string]string{v4a: "700ms", v6a: "silent", v4b: "300ms", v6b: "silent"},
			[]string{"0s " + v4a, "250ms " + v6a, "500ms " + v4b}, 700 * time.Millisecond, "",
		},
		"all refuse": {
			map[string]string{v4a: "refuses", v6a: "refuses", v4b: "refuses", v6b: "refuses"},
			[]string{"0s " + v4a, "0s " + v6a, "0s " + v4b, "0s " + v6b}, 0, v6b + " refuses",
		},
		"all are silent": {
			map[string]string{v4a: "silent", v6a: "refuses", v4b: "silent", v6b: "silent"},
			[]string{"0s " + v4a, "250ms " + v6a, "250ms " + v4b, "500ms " + v6b}, 2 * time.Second, "deadline exceeded",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				y := newEyes(t, tt.behave)
				resp, failure := y.endpoint.RoundTrip(newRequest(t.Context(), t, http.MethodGet, nil), 0)
				if took := time.Since(y.begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				switch {
				case tt.fails == "" && failure != nil:
					t.Errorf("failed: %v", failure.Err)
				case tt.fails != "" && (failure == nil || failure.Kind != outcome.ConnectFailure || !strings.Contains(failure.Err.Error(), tt.fails)):
					t.Errorf("got %+v, want a failure to connect: %s", failure, tt.fails)
				}
				if resp != nil {
					_ = resp.Body.Close()
				}
				y.mu.Lock()
				defer y.mu.Unlock()
				if !slices.Equal(y.tried, tt.tried) {
					t.Errorf("tried %q, want %q", y.tried, tt.tried)
				}
			})
		})
	}
}

// A connection that comes too late is closed, and the manager waits for it.
func TestBL12_LateConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		y := newEyes(t, map[string]string{v4a: "1s", v6a: "0s"})
		get(t, y.endpoint)
		y.mu.Lock()
		n := len(y.opened)
		y.mu.Unlock()
		if n != 1 {
			t.Fatalf("%d connections are open", n)
		}
		closed := make(chan struct{})
		go func() { y.manager.Close(); close(closed) }()
		<-closed
		if took := time.Since(y.begin); took != time.Second {
			t.Errorf("the manager closed after %v, want when the late connection came", took)
		}
		y.mu.Lock()
		defer y.mu.Unlock()
		for _, c := range y.opened {
			if _, err := c.Write([]byte{0}); err == nil {
				t.Error("a connection is still open")
			}
		}
	})
}

package ads_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/inboardmesh/inboard/internal/adstest"
)

var errCut = errors.New("cut")

// attacker is the server of the authority "two". It knows all names of the others.
type attacker struct {
	server *adstest.Server
	random *rand.Rand
	names  []string
	delta  bool
	done   atomic.Bool
}

// run lies, floods, is silent, and dies, until it is done.
func (a *attacker) run() {
	for !a.done.Load() {
		s := a.server.Accept()
		for n := a.random.IntN(30); n > 0 && !a.done.Load(); n-- {
			time.Sleep(time.Duration(a.random.IntN(900)) * time.Millisecond)
			s.Pending()
			s.Send(a.response())
		}
		switch a.random.IntN(3) {
		case 0:
			s.End(errCut)
		case 1:
			a.server.Stop()
			time.Sleep(time.Duration(a.random.IntN(20)) * time.Second)
			a.server.Restart()
		default:
			s.End(nil)
		}
	}
}

func (a *attacker) name() string {
	name := a.names[a.random.IntN(len(a.names))]
	if a.random.IntN(4) == 0 {
		return fmt.Sprintf("xdstp://one/%s/shop/%d", cluster, a.random.IntN(1000))
	}
	return name
}

func (a *attacker) response() proto.Message {
	url := []string{cds, eds, lds}[a.random.IntN(3)]
	nonce := fmt.Sprint(a.random.Uint32())
	var resources []*discoveryv3.Resource
	for range a.random.IntN(6) {
		r := adstest.Resource(a.name(), fmt.Sprint(a.random.IntN(3)), packed(url, []string{"x=666", "x=!lie", "x=panic", "junk"}[a.random.IntN(4)]))
		switch a.random.IntN(8) {
		case 0:
			r.Resource = nil
		case 1:
			r.Ttl = durationpb.New(time.Millisecond)
		case 2:
			r.Resource.TypeUrl = rds
		}
		resources = append(resources, r)
	}
	failed := []*discoveryv3.ResourceError{{
		ResourceName: &discoveryv3.ResourceName{Name: a.name()},
		ErrorDetail:  &statuspb.Status{Code: int32([]codes.Code{codes.NotFound, codes.PermissionDenied, codes.Internal}[a.random.IntN(3)]), Message: "lie"},
	}}
	if a.random.IntN(2) == 0 {
		failed = nil
	}
	if a.delta {
		response := adstest.Removing(adstest.DeltaResponse(url, nonce, resources...), a.name(), a.name(), "*")
		response.ResourceErrors = failed
		return response
	}
	response := adstest.Response(url, nonce, nonce)
	for _, r := range resources {
		response.Resources = append(response.Resources, adstest.Any(r))
	}
	response.ResourceErrors = failed
	return response
}

// victims is what the watchers of the home server and of the authority "one", which is
// at the same server, hear of a life with changes, mistakes, removals and a cut.
func victims(t *testing.T, seed uint64, deltaMode, attacked bool) (heard []string) {
	h, two := federated(t, deltaMode)
	a1, a2 := "a", "b"
	o1, o2 := "xdstp://one/"+cluster+"/shop/a", "xdstp://one/"+cluster+"/shop/b?y=1&x=2"
	watched := map[string]*recorder{}
	for _, name := range []string{a1, a2, o1, o2} {
		watched[name] = h.watch(cds, name)
	}
	if deltaMode {
		watched[ones] = h.watch(cds, ones)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	if attacked {
		a := &attacker{server: two, random: rand.New(rand.NewPCG(seed, 2)), delta: deltaMode, names: []string{
			a1, a2, o1, o2, "xdstp://one/" + cluster + "/%73hop/b?x=9&x=2&y=1", ones, anyTwo, "xdstp://two/" + cluster + "/*", "*", "", "xdstp://",
		}}
		mine := h.watch(cds, anyTwo)
		h.watch(lds, "xdstp://two/envoy.config.listener.v3.Listener/a")
		h.watch(eds, "xdstp://two/envoy.config.endpoint.v3.ClusterLoadAssignment/a")
		ended := make(chan struct{})
		go func() { // ends with done
			defer close(ended)
			a.run()
		}()
		defer func() {
			a.done.Store(true)
			<-ended
			mine.take()
			if n := len(h.client.Dump()); n > 12 {
				t.Errorf("%d resources are known", n)
			}
		}()
	}
	s := h.server.Accept()
	s.RecvType(cds)
	begun := time.Now()
	for step := range 25 {
		// Half a second after the whole one: nothing of the other happens at the same time.
		time.Sleep(time.Until(begun.Add(time.Duration(step+1) * time.Second)))
		version := fmt.Sprint("v", step)
		var all []any
		for _, name := range []string{a1, a2, o1, o2} {
			switch random.IntN(6) {
			case 0:
				all = append(all, "removed:"+name)
			case 1:
				all = append(all, adstest.Resource(name, version, packed(cds, "x=!bad")))
			default:
				all = append(all, adstest.Resource(name, version, packed(cds, fmt.Sprint("x=", step/2))))
			}
		}
		h.respond(s, cds, version, version, all...)
		if step == 12 {
			s.End(errCut)
			s = h.server.Accept()
		}
	}
	synctest.Wait()
	for _, name := range slices.Sorted(maps.Keys(watched)) {
		for _, e := range watched[name].take() {
			heard = append(heard, name+": "+e.String())
		}
		if name != ones {
			got := h.state(cds, canonicalOf(name))
			heard = append(heard, fmt.Sprint(name, got.State, got.Resource, got.Version, got.Err, got.Rejections))
		}
	}
	return heard
}

// canonicalOf is the form in which a name of the test is known.
func canonicalOf(name string) string {
	if name == "xdstp://one/"+cluster+"/shop/b?y=1&x=2" {
		return "xdstp://one/" + cluster + "/shop/b?x=2&y=1"
	}
	return name
}

func TestS12_WhatOneAuthoritysServerDoesIsNothingToTheOthers(t *testing.T) {
	t.Parallel()
	for _, deltaMode := range []bool{false, true} {
		for seed := range uint64(15) {
			var alone, attacked []string
			synctest.Test(t, func(t *testing.T) { alone = victims(t, seed, deltaMode, false) })
			synctest.Test(t, func(t *testing.T) { attacked = victims(t, seed, deltaMode, true) })
			if len(alone) < 20 {
				t.Fatalf("heard only %q", alone)
			}
			if !slices.Equal(alone, attacked) {
				for i := range min(len(alone), len(attacked)) {
					if alone[i] != attacked[i] {
						t.Errorf("delta %v, seed %d: heard\n%s\nwithout the other,\n%s\nwith it", deltaMode, seed, alone[i], attacked[i])
						break
					}
				}
				t.Fatalf("%d events without the other, %d with it", len(alone), len(attacked))
			}
		}
	}
}

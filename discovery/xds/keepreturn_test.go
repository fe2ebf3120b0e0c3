package xds_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// one is what serveOne serves, in the order in which it is needed.
func one() []proto.Message {
	return []proto.Message{apiListener("r"), routes("r", "a"), cluster("a"), endpoints("a", 1)}
}

// notFound tells the client in so many words that a resource does not exist.
func (c *controlPlane) notFound(url, name string) {
	c.t.Helper()
	response := adstest.Response(url, "gone", "nonce-gone-"+name)
	for asked, m := range c.resources[url] {
		if asked != name {
			response.Resources = append(response.Resources, adstest.Any(m))
		}
	}
	response.ResourceErrors = []*discoveryv3.ResourceError{doesNotExist(name)}
	c.stream.Send(response)
	c.run()
}

func doesNotExist(name string) *discoveryv3.ResourceError {
	return &discoveryv3.ResourceError{
		ResourceName: &discoveryv3.ResourceName{Name: name},
		ErrorDetail:  &statuspb.Status{Code: int32(codes.NotFound), Message: "no such resource"},
	}
}

// startsFromDisk checks that a process without a control plane has its target.
func (c *controlPlane) startsFromDisk(dir string) {
	c.t.Helper()
	p := c.begin(dir)
	synctest.Wait()
	if got := p.published.last(c.t).Value; got == nil || addressOf(got, "a") != "10.0.0.1:1" {
		c.t.Errorf("published %+v, want the target from disk", got)
	}
	if got := p.ConfigSource(); got.LastKnownGood != 4 {
		c.t.Errorf("%d resources from disk, want 4", got.LastKnownGood)
	}
}

func TestX26_AResourceThatWasRemovedAndIsBackAsItWasIsOnDisk(t *testing.T) {
	t.Parallel()
	for _, m := range one() {
		url, name := nameOf(m)
		short := string(m.ProtoReflect().Descriptor().Name())
		t.Run(short+" in removed_resources", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := new(memnet.Network)
				plane := adstest.Serve(t, adstest.Config{Network: network})
				plane.Set(one()...)
				cp := &controlPlane{t: t, network: network, server: plane.Server}
				dir := filepath.Join(t.TempDir(), "kept")
				p := cp.begin(dir)
				time.Sleep(3 * time.Second) // it is on disk
				plane.Remove(url, name)
				time.Sleep(3 * time.Second) // it is not
				plane.Set(m)
				time.Sleep(3 * time.Second)
				if got := p.published.last(t); got.Value == nil || got.Err != nil {
					t.Fatalf("published %+v, want that all is well again", got)
				}
				p.end(t)
				cp.stop()
				cp.startsFromDisk(dir)
			})
		})
		for _, way := range []struct {
			name string
			gone func(*controlPlane)
			// all is false if only Listeners and Clusters can go in this way.
			all bool
		}{
			{name: "left out of the state of the world", gone: func(cp *controlPlane) { cp.remove(url, name) }},
			{name: "NOT_FOUND", gone: func(cp *controlPlane) { cp.notFound(url, name) }, all: true},
		} {
			if !way.all && url != listenerURL && url != clusterURL {
				continue
			}
			t.Run(short+" "+way.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					cp := newControlPlane(t)
					dir := filepath.Join(t.TempDir(), "kept")
					serveOne(cp)
					p := cp.begin(dir)
					cp.accept()
					time.Sleep(3 * time.Second)
					way.gone(cp)
					if got := p.published.last(t); got.Value == nil || got.Err == nil {
						t.Fatalf("published %+v, want that it is gone and stays in force", got)
					}
					time.Sleep(3 * time.Second)
					cp.set(m)
					if got := p.published.last(t); got.Value == nil || got.Err != nil {
						t.Fatalf("published %+v, want that all is well again", got)
					}
					p.end(t)
					cp.stop()
					cp.startsFromDisk(dir)
				})
			})
		}
	}
}

// A new watch is told what is in force before it is told what is wrong with it.
// That is no word of the control plane: what was removed grows old on disk.
func TestWhatWasRemovedIsNotYoungerOnDiskBecauseSomebodyElseWatchesIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		plane := adstest.Serve(t, adstest.Config{Network: network})
		plane.Set(one()...)
		cp := &controlPlane{t: t, network: network, server: plane.Server}
		dir := filepath.Join(t.TempDir(), "kept")
		p := cp.begin(dir)
		time.Sleep(3 * time.Second)
		plane.Remove(listenerURL, destination)
		time.Sleep(23 * time.Hour)
		bad := apiListener("r")
		bad.ApiListener.ApiListener.Value = []byte{0xff}
		plane.Set(bad)
		synctest.Wait()
		if len(plane.Rejections()) == 0 {
			t.Fatal("the bad version was accepted")
		}
		second := watchTarget(p.Source)
		synctest.Wait()
		if got := second.last(t); got.Value == nil || got.Err == nil {
			t.Fatalf("published %+v, want what is in force", got)
		}
		time.Sleep(2 * time.Hour)
		p.end(t)
		cp.stop()
		p = cp.begin(dir)
		synctest.Wait()
		if got := p.published.last(t).Value; got != nil {
			t.Errorf("published %+v: what was removed 25 hours before has come back", got)
		}
	})
}

func TestX90_AResourceWithATimeToLiveIsNotOnDisk(t *testing.T) {
	t.Parallel()
	for i, m := range one() {
		for _, way := range []struct {
			name        string
			first, then time.Duration
		}{
			{"has one", time.Minute, time.Minute},
			{"is given one", 0, time.Minute},
			{"has none any more", time.Minute, 0},
		} {
			for _, refuseDelta := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, without delta: %v", m.ProtoReflect().Descriptor().Name(), way.name, refuseDelta), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						network := new(memnet.Network)
						plane := adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: refuseDelta})
						plane.Set(one()...)
						plane.SetTTL(way.first, m)
						cp := &controlPlane{t: t, network: network, server: plane.Server}
						dir := filepath.Join(t.TempDir(), "kept")
						p := cp.begin(dir)
						time.Sleep(3 * time.Second) // what is kept is on disk
						plane.SetTTL(way.then, m)
						time.Sleep(3 * time.Second)
						if got := p.published.last(t); got.Value == nil || got.Err != nil {
							t.Fatalf("published %+v, want that all is well", got)
						}
						p.end(t)
						cp.stop()
						if way.then == 0 {
							cp.startsFromDisk(dir)
							return
						}
						// Only what comes before it is found and asked for.
						p = cp.begin(dir)
						time.Sleep(time.Hour)
						if got := p.ConfigSource().LastKnownGood; got != i {
							t.Errorf("%d resources from disk, want %d", got, i)
						}
						for _, u := range p.published.take() {
							if u.Value != nil && addressOf(u.Value, "a") == "10.0.0.1:1" {
								t.Errorf("published %+v: it has outlived its time", u.Value)
							}
						}
					})
				})
			}
		}
	}
}

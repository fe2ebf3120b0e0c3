package xds_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/adstest"
	"github.com/inboardmesh/inboard/internal/memnet"
)

// empties are the ways in which a control plane that has nothing yet says so.
var empties = []struct {
	name  string
	delta bool
	// say is called once a second while the process runs.
	say func(*adstest.Stream, *adstest.Request)
}{
	{name: "an empty state of the world", say: func(s *adstest.Stream, r *adstest.Request) {
		s.Send(adstest.Response(r.TypeURL, "empty", "nonce"))
	}},
	{name: "NOT_FOUND", say: func(s *adstest.Stream, r *adstest.Request) {
		response := adstest.Response(r.TypeURL, "empty", "nonce")
		for _, name := range r.Names {
			response.ResourceErrors = append(response.ResourceErrors, doesNotExist(name))
		}
		s.Send(response)
	}},
	{name: "PERMISSION_DENIED", say: func(s *adstest.Stream, r *adstest.Request) {
		response := adstest.Response(r.TypeURL, "empty", "nonce")
		for _, name := range r.Names {
			refused := doesNotExist(name)
			refused.ErrorDetail.Code = int32(codes.PermissionDenied)
			response.ResourceErrors = append(response.ResourceErrors, refused)
		}
		s.Send(response)
	}},
	{name: "removed_resources", delta: true, say: func(s *adstest.Stream, r *adstest.Request) {
		s.Send(adstest.Removing(adstest.DeltaResponse(r.TypeURL, "nonce"), r.Subscribe...))
	}},
}

// A process that runs keeps what a control plane says it does not have (X33). One that
// was started while the control plane was away, or is started now, is no worse off: the
// control plane may answer before it has loaded anything.
func TestX33_X36_AProcessFromDiskKeepsWhatAnEmptyControlPlaneDoesNotHave(t *testing.T) {
	t.Parallel()
	for _, empty := range empties {
		for _, late := range []bool{false, true} {
			name := empty.name + " at once"
			if late {
				name = empty.name + " after a start without it"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					network := new(memnet.Network)
					plane := adstest.Serve(t, adstest.Config{Network: network, RefuseDelta: !empty.delta})
					plane.Set(one()...)
					cp := &controlPlane{t: t, network: network, server: plane.Server}
					dir := filepath.Join(t.TempDir(), "kept")
					p := cp.begin(dir)
					time.Sleep(3 * time.Second)
					p.end(t)
					plane.Server.Stop()

					// A server of its own, so that every answer is scripted.
					cp.network = new(memnet.Network)
					cp.server = adstest.Start(t, adstest.Config{Network: cp.network, RefuseDelta: !empty.delta})
					if late {
						cp.server.Stop()
					}
					p = cp.begin(dir)
					synctest.Wait()
					if late {
						cp.server.Restart()
					}
					stream := cp.server.Accept()
					for range 30 {
						synctest.Wait()
						for _, r := range stream.Pending() {
							if r.Nonce == "" || len(r.Subscribe) > 0 {
								empty.say(stream, r)
							}
						}
						time.Sleep(time.Second)
					}
					synctest.Wait()
					updates := p.published.take()
					begun := false
					for i, u := range updates {
						begun = begun || u.Value != nil
						if u.Value == nil && (begun || errors.Is(u.Err, discovery.ErrNotFound) || errors.Is(u.Err, discovery.ErrUnusable)) {
							t.Errorf("published %+v as number %d: calls fail", u, i)
						}
					}
					if n := len(updates); n == 0 || updates[n-1].Value == nil || updates[n-1].Err == nil || addressOf(updates[n-1].Value, "a") != "10.0.0.1:1" {
						t.Fatalf("published %+v, want what is on disk, and what is wrong with it", updates)
					}
					if got := updates[len(updates)-1].Err.Error(); !strings.Contains(got, "the last known good version from disk is in force") {
						t.Errorf("told of %q", got)
					}
					if got := p.ConfigSource(); got.LastKnownGood != 4 || got.Live != 0 {
						t.Errorf("source %+v", got)
					}
					p.end(t)
					cp.server.Stop()
					cp.startsFromDisk(dir) // and again
				})
			})
		}
	}
}

func TestX33_WhatAnEmptyControlPlaneIsLoadedWithTakesOverWithoutAGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := keepOne(t, cp)
		loaded := cp.resources
		cp.resources = map[string]map[string]proto.Message{listenerURL: {}, routeURL: {}, clusterURL: {}, endpointURL: {}}
		p := cp.begin(dir)
		synctest.Wait()
		cp.server.Restart()
		time.Sleep(2 * time.Second)
		cp.accept()
		time.Sleep(time.Minute)
		before := p.published.last(t)
		if before.Value == nil || before.Err == nil {
			t.Fatalf("published %+v", before)
		}
		cp.resources = loaded
		cp.push(listenerURL, routeURL, clusterURL, endpointURL)
		if got := p.published.last(t); got.Value != before.Value || got.Err != nil {
			t.Errorf("published %+v, want the same without an error", got)
		}
		if got := p.ConfigSource(); got.String() != "live" || got.Live != 4 {
			t.Errorf("source %+v", got)
		}
	})
}

// MaxAge bounds how long what the control plane does not have any more is used by
// processes that start: it is 24 hours by default.
func TestX33_WhatWasRemovedIsOnDiskUntilItIsTooOld(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]bool{23 * time.Hour: true, 25 * time.Hour: false} {
		t.Run(age.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := new(memnet.Network)
				plane := adstest.Serve(t, adstest.Config{Network: network})
				plane.Set(one()...)
				cp := &controlPlane{t: t, network: network, server: plane.Server}
				dir := filepath.Join(t.TempDir(), "kept")
				p := cp.begin(dir)
				time.Sleep(time.Hour)
				p.published.take()
				plane.Remove(clusterURL, "a")
				time.Sleep(age)
				if got := p.published.last(t); got.Value == nil || got.Value.Clusters["a"].Err != nil || got.Err == nil {
					t.Fatalf("published %+v, want that it stays in force", got)
				}
				p.end(t)
				cp.stop()
				p = cp.begin(dir)
				synctest.Wait()
				got := p.published.last(t).Value
				if works := got != nil && got.Clusters["a"].Err == nil; works != want {
					t.Errorf("%v after it was removed it works: %v, want %v", age, works, want)
				}
			})
		})
	}
}

func TestX33_AStrictProcessDoesNotUseWhatTheControlPlaneDoesNotHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cp := newControlPlane(t)
		dir := keepOne(t, cp, "fail_on_data_errors")
		cp.resources[listenerURL] = map[string]proto.Message{"other": apiListener("r")}
		p := cp.begin(dir, "fail_on_data_errors")
		synctest.Wait()
		p.published.take()
		cp.server.Restart()
		time.Sleep(2 * time.Second)
		cp.accept()
		time.Sleep(time.Minute)
		if got := p.published.last(t); got.Value != nil || !errors.Is(got.Err, discovery.ErrNotFound) {
			t.Errorf("published %+v, want that it is not known", got)
		}
		p.end(t)
		cp.stop()
		p = cp.begin(dir, "fail_on_data_errors")
		synctest.Wait()
		if got := p.published.last(t).Value; got != nil {
			t.Errorf("published %+v: it has come back", got)
		}
	})
}

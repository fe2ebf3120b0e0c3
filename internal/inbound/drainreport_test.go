package inbound

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// A request that is cut off ends, too. It is not reported as one that was finished.
func TestBD5_WhatIsCutOffIsNotCountedAsFinished(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.listen(permissive()).Serves()
		hooks := b.listeners.options.Hooks
		closed := hooks.ConnClosed
		hooks.ConnClosed = func(e observe.ConnEvent) {
			closed(e)
			b.listeners.End() // as handlers do that notice
		}
		for range 3 {
			client, err := b.dial(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			b.listeners.Begin()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		result := b.drain(ctx, atOnce)
		b.listeners.Begin()
		b.listeners.End()
		got := <-result
		want := observe.DrainReport{Duration: 10 * time.Second, Finished: 1, Late: 1, Cut: 3, ConnectionsCut: 3}
		if got.err == nil || got.report != want {
			t.Errorf("got %+v, %v, want %+v", got.report, got.err, want)
		}
	})
}

// Peers make connections before they call. Those to a server that is known to be one of
// HTTP are idle, and no application's own.
func TestBD4_AConnectionThatWasNotAskedForAnythingYetIsIdle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		edit  func(b *bench, ln *Listener)
		want  time.Duration
		fails bool
	}{
		{"a server of HTTP", func(b *bench, ln *Listener) { b.listeners.Follow(ln) }, lastRequests, false},
		{"a server of its own", func(*bench, *Listener) {}, time.Minute, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				tt.edit(b, ln)
				client, err := b.network.DialContext(t.Context(), "", address)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				// The first bytes tell TLS from plaintext: before, it is in its handshake.
				if _, err := client.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				got := <-b.drain(ctx, atOnce)
				if got.report.Duration != tt.want || (got.err != nil) != tt.fails || (got.report.Idle == 1) == tt.fails {
					t.Errorf("got %+v, %v", got.report, got.err)
				}
			})
		})
	}
}

// What was accepted before the listeners were closed may learn how its peer is asked to go
// only afterwards.
func TestBD3_WhoComesLastIsAskedToGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		ln.Serves()
		client, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		b.listeners.Begin() // something runs
		result := b.drain(t.Context(), atOnce)
		if !isOver(b.listeners) {
			t.Fatal("connections are accepted still")
		}
		asked := 0
		SetFarewell(ln.known.find(client.LocalAddr().String()), func() { asked++ })
		if asked != 1 {
			t.Errorf("the peer was asked %d times, want once", asked)
		}
		_ = client.Close()
		b.listeners.End()
		if got := <-result; got.err != nil {
			t.Error(got.err)
		}
	})
}

package inbound

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/observe"
)

// atOnce closes the listeners of those who drain without a wait.
var atOnce = DrainPolicy{Listen: -1, Quiet: -1, Immediate: true}

// drained is the result of Drain.
type drained struct {
	report observe.DrainReport
	err    error
}

// drain drains in the background.
func (b *bench) drain(ctx context.Context, policy DrainPolicy) <-chan drained {
	result := make(chan drained, 1)
	go func() { // ends with Drain
		report, err := b.listeners.Drain(ctx, policy)
		result <- drained{report, err}
	}()
	synctest.Wait()
	return result
}

// Callers hear of the end later than the process does.
func TestBD2_ListenersStayOpenWhilePeersCome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		policy    DrainPolicy
		within    time.Duration // of the context; 0 is without a deadline
		come      time.Duration // for how long requests come, ten a second
		want      time.Duration // how long connections are accepted
		atMost    bool
		closesOwn time.Duration // when the server closes its listener itself; 0 is never
	}{
		{name: "nobody comes", within: time.Minute, want: defaultListen},
		{name: "nobody comes, and nobody is expected", policy: atOnce, within: time.Minute, want: 0},
		{name: "peers come for longer than expected", within: time.Minute, come: 8 * time.Second, want: 8*time.Second + defaultQuiet, atMost: true},
		{name: "peers come to the end", within: time.Minute, come: 2 * time.Minute, want: 45 * time.Second},
		{name: "peers come to the end, and what runs is to have more", policy: DrainPolicy{Finish: 40 * time.Second}, within: time.Minute, come: time.Minute, want: 20 * time.Second},
		{name: "the time is short", within: 4 * time.Second, want: 3 * time.Second},
		{name: "peers come for ever, and nobody says how long they may", come: time.Hour, want: longestDrain * 3 / 4},
		{name: "a policy of its own", policy: DrainPolicy{Listen: 2 * time.Second, Quiet: 3 * time.Second}, within: time.Minute, want: 3 * time.Second},
		{name: "the server closes the listener", within: time.Minute, closesOwn: time.Second, want: time.Second, atMost: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				ln.Serves()
				ctx := t.Context()
				if tt.within > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.within)
					defer cancel()
				}
				if tt.closesOwn > 0 {
					time.AfterFunc(tt.closesOwn, func() { _ = ln.Close() })
				}
				result := b.drain(ctx, tt.policy)
				come := time.NewTicker(100 * time.Millisecond)
				defer come.Stop()
				begun, calls := time.Now(), int64(0)
				var got drained
				for ended := false; !ended; {
					select {
					case <-come.C:
						if time.Since(begun) <= tt.come {
							b.listeners.Begin()
							b.listeners.End()
							calls++
						}
					case got = <-result:
						ended = true
					}
				}
				if got.err != nil {
					t.Error(got.err)
				}
				if off := got.report.Listening - tt.want; off < 0 && !tt.atMost || off > askInterval || off < -2*askInterval {
					t.Errorf("it listened for %v, want %v", got.report.Listening, tt.want)
				}
				if got.report.Late != got.report.Finished || tt.come > 0 && got.report.Late == 0 {
					t.Errorf("of %d requests: %+v", calls, got.report)
				}
				if _, err := b.dial(nil); err == nil {
					t.Error("a connection was accepted afterwards")
				}
			})
		})
	}
}

func TestBD2_WhoComesWhileTheProcessDrainsIsServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		ln.Serves()
		result := b.drain(t.Context(), DrainPolicy{})
		if !b.listeners.Draining() {
			t.Error("it does not drain")
		}
		for range 3 {
			client, err := b.dial(b.client(customerID))
			if err != nil {
				t.Fatal(err)
			}
			_ = client.Close()
		}
		if got := <-result; got.err != nil || got.report.Closed != 3 || got.report.Refused != 0 {
			t.Errorf("%+v, %v", got.report, got.err)
		}
	})
}

// A listener that is closed loses nothing of what it has accepted.
func TestBD2_AConnectionInItsHandshakeIsServedStill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		ln.Serves()
		silent, err := b.network.DialContext(t.Context(), "", address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		late, err := b.network.DialContext(t.Context(), "", address)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		synctest.Wait()
		result := b.drain(t.Context(), atOnce)
		time.Sleep(time.Second)
		if _, err := b.dial(nil); err == nil {
			t.Error("a connection was accepted")
		}
		if err := hello(late); err != nil {
			t.Errorf("a connection that had been accepted before: %v", err)
		}
		_ = late.Close()
		if got := <-result; got.err != nil || got.report.Refused != 1 || got.report.Duration != lastRequests {
			t.Errorf("%+v, %v", got.report, got.err)
		}
	})
}

// Peers are asked to go one after the other, or all at once.
func TestBD3_ThePeersAreAskedToGo(t *testing.T) {
	t.Parallel()
	const peers = 40
	for _, tt := range []struct {
		name   string
		policy DrainPolicy
		by     time.Duration // when all have been asked
		half   [2]int        // how many there may be at half of it
	}{
		{"gradually, by half of the time", DrainPolicy{}, 30 * time.Second, [2]int{8, 32}},
		{"gradually, within a time", DrainPolicy{Time: 10 * time.Second, Listen: 20 * time.Second}, 10 * time.Second, [2]int{8, 32}},
		{"at once", DrainPolicy{Immediate: true, Listen: 20 * time.Second}, 200 * time.Millisecond, [2]int{peers, peers}},
		{"with the listeners", DrainPolicy{Listen: -1, Quiet: -1, Time: time.Minute}, 0, [2]int{peers, peers}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				ln.Serves()
				var mu sync.Mutex
				asked := map[int]bool{}
				var remote []string
				for i := range peers {
					client, err := b.dial(nil)
					if err != nil {
						t.Fatal(err)
					}
					c := ln.known.find(client.LocalAddr().String())
					SetFarewell(c, func() {
						mu.Lock()
						defer mu.Unlock()
						if asked[i] {
							t.Error("a peer was asked twice")
						}
						asked[i] = true
					})
					remote = append(remote, c.remote)
				}
				time.Sleep(time.Minute) // they are no new connections
				if ln.Leaving(remote[0]) {
					t.Error("a peer was to go before")
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				// Requests come all the time.
				b.listeners.Begin()
				var calls sync.WaitGroup
				calls.Go(func() { // ends with ctx
					for ctx.Err() == nil && !isOver(b.listeners) {
						b.listeners.Begin()
						b.listeners.End()
						time.Sleep(100 * time.Millisecond)
					}
					<-ctx.Done()
					b.listeners.End()
				})
				result := b.drain(ctx, tt.policy)
				count := func() (n, leaving int) {
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					for _, r := range remote {
						if ln.Leaving(r) {
							leaving++
						}
					}
					return len(asked), leaving
				}
				time.Sleep(tt.by / 2)
				if n, leaving := count(); n < tt.half[0] || n > tt.half[1] || leaving < n {
					t.Errorf("%d were asked and %d responses would ask after half of the time, want %v", n, leaving, tt.half)
				}
				time.Sleep(tt.by/2 + askInterval)
				if n, leaving := count(); n != peers || leaving != peers {
					t.Errorf("%d were asked and %d responses would ask in the end", n, leaving)
				}
				cancel()
				<-result
				calls.Wait()
			})
		})
	}
}

// isOver reports whether no connection is accepted any more.
func isOver(l *Listeners) bool {
	d := l.drain.Load()
	return d != nil && d.closed.Load() != 0
}

// A peer that has not heard that it should go elsewhere comes back: it must not be
// sent away at once, again and again.
func TestBD3_APeerThatComesBackIsLeftAloneForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		ln.Serves()
		result := b.drain(t.Context(), DrainPolicy{Immediate: true})
		client, err := b.dial(nil)
		if err != nil {
			t.Fatal(err)
		}
		remote := client.LocalAddr().String()
		if ln.Leaving(remote) {
			t.Error("it is sent away at once")
		}
		time.Sleep(settled)
		if !ln.Leaving(remote) {
			t.Error("it is not sent away at all")
		}
		_ = client.Close()
		if got := <-result; got.err != nil {
			t.Error(got.err)
		}
	})
}

func TestDrainFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		ln := b.listen(permissive())
		b.listeners.Begin()
		b.listeners.Begin()
		first, second := b.drain(t.Context(), atOnce), b.drain(t.Context(), DrainPolicy{Listen: time.Hour})
		accepted := make(chan error, 1)
		go func() {
			_, err := ln.Accept()
			accepted <- err
		}()
		synctest.Wait()
		if _, err := b.dial(nil); err == nil {
			t.Error("a connection was accepted")
		}
		b.listeners.End()
		b.listeners.Begin() // one that came over an open connection
		b.listeners.End()
		synctest.Wait()
		select {
		case got := <-first:
			t.Fatalf("Drain returned %+v while a request runs", got)
		case err := <-accepted:
			t.Fatalf("Accept returned %v while a request runs: its server would end", err)
		default:
		}
		if _, err := b.listeners.Drain(canceled(), DrainPolicy{}); !errors.Is(err, context.Canceled) || err.Error() != "drain: it goes on, as it was begun: context canceled" {
			t.Errorf("one who does not wait: %v", err)
		}
		b.listeners.End()
		want := observe.DrainReport{Finished: 3, Late: 1}
		for _, result := range []<-chan drained{first, second} {
			if got := <-result; got.err != nil || got.report != want {
				t.Errorf("got %+v, %v, want %+v", got.report, got.err, want)
			}
		}
		_ = ln.Close()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
		if got, err := b.listeners.Drain(t.Context(), DrainPolicy{}); err != nil || got != want {
			t.Errorf("Drain once more: %+v, %v", got, err)
		}
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// What is lost with a connection is the request that is on its way.
func TestDrainWaitsForTheConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		closed time.Duration // by the peer; 0 is never
		call   time.Duration // when a last request comes, for a second; 0 is never
		ctx    time.Duration
		want   time.Duration
		idle   int64
	}{
		{name: "until the peer closes", closed: 2 * time.Second, ctx: time.Minute, want: 2 * time.Second},
		{name: "not for a peer that stays", ctx: time.Minute, want: lastRequests, idle: 1},
		{name: "no longer than its context, without an error", ctx: time.Second, want: time.Second, idle: 1},
		{name: "for a request that comes at last", call: lastRequests - time.Millisecond, ctx: time.Minute, want: lastRequests - time.Millisecond + time.Second, idle: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.listen(permissive()).Serves()
				client, err := b.dial(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				if tt.closed > 0 {
					time.AfterFunc(tt.closed, func() { _ = client.Close() })
				}
				if tt.call > 0 {
					time.AfterFunc(tt.call, b.listeners.Begin)
					time.AfterFunc(tt.call+time.Second, b.listeners.End)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
				defer cancel()
				got := <-b.drain(ctx, atOnce)
				if got.err != nil {
					t.Error(got.err)
				}
				if got.report.Duration != tt.want || got.report.Idle != tt.idle || got.report.Closed != 1-tt.idle {
					t.Errorf("got %+v, want %v", got.report, tt.want)
				}
				if tt.idle > 0 {
					if err := hello(client); err != nil {
						t.Errorf("the idle connection was not left to its server: %v", err)
					}
				}
			})
		})
	}
}

// Drain knows of connections only that they are open where the application speaks
// a protocol of its own, or after an upgrade.
func TestBD4_ConnectionsWithoutRequestsAreFinishedToo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		upgraded bool
		closed   time.Duration // by the peer; 0 is never
		want     time.Duration
		cut      bool
	}{
		{name: "a connection of the application that ends", closed: 20 * time.Second, want: 20 * time.Second},
		{name: "a connection of the application that stays", want: time.Minute, cut: true},
		{name: "an upgraded connection that ends", upgraded: true, closed: 20 * time.Second, want: 20 * time.Second},
		{name: "an upgraded connection that stays", upgraded: true, want: time.Minute, cut: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				client, err := b.dial(b.client(customerID))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				if tt.upgraded {
					ln.Serves()
					for range 2 {
						ln.Upgraded(nil, &Connection{Remote: client.LocalAddr().String()})
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				result := b.drain(ctx, atOnce)
				time.Sleep(10 * time.Second)
				if err := hello(client); err != nil {
					t.Fatalf("the connection does not work while the process drains: %v", err)
				}
				if tt.closed > 0 {
					time.Sleep(tt.closed - 10*time.Second)
					_ = client.Close()
				}
				got := <-result
				if got.report.Duration != tt.want || got.report.Closed+got.report.ConnectionsCut != 1 {
					t.Errorf("got %+v", got.report)
				}
				if tt.cut {
					const want = "drain: 0 requests and 1 connections cut off: context deadline exceeded"
					if got.err == nil || got.err.Error() != want || got.report.ConnectionsCut != 1 {
						t.Errorf("got %+v, %v", got.report, got.err)
					}
					if err := hello(client); err == nil {
						t.Error("the connection was not cut off")
					}
				} else if got.err != nil {
					t.Error(got.err)
				}
				if n := b.listeners.upgraded.Load(); n != 0 {
					t.Errorf("%d upgraded connections are counted", n)
				}
			})
		})
	}
}

func TestBD5_WhatStillRunsWhenTheTimeIsOverIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.listen(permissive()).Serves()
		client, err := b.dial(b.client(customerID))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			b.listeners.Begin()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got := <-b.drain(ctx, DrainPolicy{})
		const want = "drain: 3 requests and 1 connections cut off: context deadline exceeded"
		if got.err == nil || got.err.Error() != want || !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %s", got.err, want)
		}
		if want := (observe.DrainReport{Duration: 10 * time.Second, Listening: got.report.Listening, Cut: 3, ConnectionsCut: 1}); got.report != want {
			t.Errorf("got %+v, want %+v", got.report, want)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the connection: %v", err)
		}
		for range 3 {
			b.listeners.End()
		}
		if again, err := b.listeners.Drain(t.Context(), DrainPolicy{}); !errors.Is(err, context.DeadlineExceeded) || again != got.report {
			t.Errorf("Drain once more: %+v, %v", again, err)
		}
	})
}

func TestCloseEndsDrain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		after time.Duration
		runs  bool
		used  bool // is a connection by itself
	}{
		{"while it listens", time.Second, false, false},
		{"while it listens and a request runs", time.Second, true, false},
		{"while it listens and a connection is used", time.Second, false, true},
		{"while a request runs", 30 * time.Second, true, false},
		{"while a connection is used", 30 * time.Second, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ln := b.listen(permissive())
				if !tt.used {
					ln.Serves()
				} else if _, err := b.dial(nil); err != nil {
					t.Fatal(err)
				}
				if tt.runs {
					b.listeners.Begin()
				}
				result := b.drain(t.Context(), DrainPolicy{})
				time.Sleep(tt.after)
				begun := time.Now()
				if err := b.listeners.Close(); err != nil {
					t.Error(err)
				}
				got := <-result
				if took := time.Since(begun); took != 0 {
					t.Errorf("it went on for %v", took)
				}
				if under := tt.runs || tt.used; under != errors.Is(got.err, ErrClosed) || !under && got.err != nil {
					t.Errorf("got %v", got.err)
				}
				if err := b.listeners.Close(); err != nil {
					t.Errorf("Close once more: %v", err)
				}
			})
		})
	}
}

func TestDrainMissesNoEnd(t *testing.T) {
	t.Parallel()
	for range 200 {
		l := New(Options{})
		var wg sync.WaitGroup
		for range 8 {
			l.Begin()
			wg.Go(l.End)
		}
		if _, err := l.Drain(t.Context(), atOnce); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
}

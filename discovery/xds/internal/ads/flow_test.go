package ads_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inboardmesh/inboard/discovery/xds/internal/ads"
)

func TestX101_NextMessageWaitsForTheWatchersOfTheLast(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		other := h.watch(cds, "b")
		s.RecvType(cds)
		release := make(chan struct{})
		w.on = func() { <-release }
		h.respond(s, cds, "v1", "n1", "a=1", "b=1")
		h.expectACK(s, cds, "v1", "n1", "a", "b")
		for i := range 5 {
			h.respond(s, cds, fmt.Sprint(i), fmt.Sprint(i), fmt.Sprintf("a=%d", i+2), "b=1")
		}
		s.ExpectNone(time.Hour)
		if got := h.state(cds, "a"); got.Resource != "1" {
			h.t.Errorf("state %+v: a message was read while a watcher was busy", got)
		}
		close(release)
		for i := range 5 {
			h.expectACK(s, cds, fmt.Sprint(i), fmt.Sprint(i), "a", "b")
		}
		w.expect(h.t, "changed 1", "changed 2", "changed 3", "changed 4", "changed 5", "changed 6")
		other.expect(h.t, "changed 1")
	})
}

func TestX102_WatchAndCancelInsideACallback(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(lds, "l")
		route := new(recorder)
		route.on = func() { route.cancel() }
		w.on = func() {
			w.cancel()
			w.cancel()
			route.cancel = h.client.Watch(rds, "r", route)
		}
		h.respond(s, lds, "v1", "n1", "l=1")
		for s.Recv().TypeURL != rds {
			continue // the ACK, and the end of the first subscription
		}
		h.respond(s, rds, "v1", "n1", "r=1")
		w.expect(h.t, "changed 1")
		route.expect(h.t, "changed 1")
		synctest.Wait()
		if got := h.client.Dump(); len(got) != 0 {
			h.t.Errorf("dump %+v, want nothing", got)
		}
	})
}

func TestX103_NothingIsLeftOfManyWatches(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, keep := h.startWith(cds, "keep", "1")
		synctest.Wait()
		before := runtime.NumGoroutine()
		for i := range 1000 {
			w := h.watch(cds, fmt.Sprintf("c%d", i))
			e := h.watch(eds, "e")
			if i%3 == 0 {
				synctest.Wait()
			}
			w.cancel()
			e.cancel()
			w.cancel()
		}
		synctest.Wait()
		s.Pending()
		if got := h.client.Dump(); len(got) != 1 {
			h.t.Errorf("dump %+v, want one", got)
		}
		if got := runtime.NumGoroutine(); got > before+50 { // other tests run beside this one
			h.t.Errorf("%d goroutines, %d before", got, before)
		}
		keep.cancel()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := h.server.Open(); got != 0 {
			h.t.Errorf("%d connections, want none", got)
		}
		if got := h.client.Dump(); len(got) != 0 {
			h.t.Errorf("dump %+v, want nothing", got)
		}
	})
}

func TestCancelledWatcherIsNotCalled(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, first := h.start(cds, "a")
		second := h.watch(cds, "a")
		first.on = func() { second.cancel() }
		h.respond(s, cds, "v1", "n1", "a=1")
		h.expectACK(s, cds, "v1", "n1", "a")
		first.expect(h.t, "changed 1")
		second.expect(h.t)
	})
}

func TestCloseIsIdempotentAndSilent(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.startWith(cds, "a", "1")
		h.watch(cds, "b")
		s.RecvType(cds)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := h.client.Close(); err != nil {
					h.t.Error(err)
				}
			})
		}
		wg.Wait()
		<-s.Done()
		w.cancel()
		late := h.watch(cds, "a")
		late.cancel()
		time.Sleep(time.Hour)
		w.expect(h.t)
		late.expect(h.t)
	})
}

func TestCloseDuringACallbackWaitsForIt(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		s, w := h.start(cds, "a")
		var returned time.Time
		w.on = func() {
			time.Sleep(time.Minute)
			returned = time.Now()
		}
		h.respond(s, cds, "v1", "n1", "a=1")
		h.respond(s, cds, "v2", "n2", "a=2")
		synctest.Wait()
		if err := h.client.Close(); err != nil {
			h.t.Error(err)
		}
		if !returned.Equal(time.Now()) {
			h.t.Errorf("closed at %v, callback returned at %v", time.Now(), returned)
		}
		w.expect(h.t, "changed 1")
	})
}

func TestWatchOfSomethingThatCannotBeAskedFor(t *testing.T) {
	t.Parallel()
	both(t, func(h *harness) {
		for _, test := range []struct{ typeURL, name, want string }{
			{"type.googleapis.com/x.Y", "a", `error type.googleapis.com/x.Y "a": the resource type is not configured`},
			{cds, "", `error Cluster "": the resource name is empty`},
			{cds, "a\xff", `error Cluster "a\xff": the resource name is not valid UTF-8`},
			{eds, "*", `error ClusterLoadAssignment "*": the resource type has no wildcard`},
		} {
			w := h.watch(test.typeURL, test.name)
			w.expect(h.t, test.want)
			w.cancel()
		}
		h.server.ExpectNoStream(time.Minute)
		w := h.watch(cds, "")
		w.cancel()
	})
}

func TestNewClientReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := ads.NewClient(ads.Options{})
	if err == nil || err.Error() != "xDS client: no xDS server\nno node" {
		t.Errorf("error %v", err)
	}
	_, err = ads.NewClient(ads.Options{
		Servers: []ads.ServerConfig{{Name: "a"}, {Name: "b", Mode: 9}},
		Types:   []ads.Type{{URL: "u", Name: "n"}, {URL: "u", Name: "n", Decode: decodeText}, {Decode: decodeText}},
	})
	want := []string{
		`xDS server "a" has no Dial`,
		`xDS server "b" has no Dial`,
		`xDS server "b" has the unknown mode 9`,
		"no node",
		`type "n" has no Decode`,
		`type "u" is given twice`,
		`type "" (URL "") has no name or no URL`,
	}
	if err == nil || err.Error() != "xDS client: "+strings.Join(want, "\n") {
		t.Errorf("error %v", err)
	}
}

func TestLogSpeaksOfRejectionsAndStreams(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log strings.Builder
	sotw(t, func(h *harness) {
		s, _ := h.startWith(cds, "a", "1")
		for i := range 3 {
			h.respond(s, cds, fmt.Sprint(i), fmt.Sprint(i), "a=!bad")
			s.RecvType(cds)
		}
		s.End(errRestart)
		h.server.Accept()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Count(log.String(), "xDS response rejected"); got != 1 {
			h.t.Errorf("%d rejections in the log, want 1:\n%s", got, log.String())
		}
		for _, want := range []string{"xds_server=xds.test", "xDS stream broke", "the server restarts"} {
			if !strings.Contains(log.String(), want) {
				h.t.Errorf("log without %q:\n%s", want, log.String())
			}
		}
	}, func(o *ads.Options) {
		o.Logger = slog.New(slog.NewTextHandler(writer(func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			log.Write(p)
		}), nil))
	})
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestStateNames(t *testing.T) {
	t.Parallel()
	var names []string
	for s := ads.StateRequested; s <= ads.StateTimeout+1; s++ {
		names = append(names, s.String())
	}
	if got := strings.Join(names, " "); got != "REQUESTED DOES_NOT_EXIST ACKED NACKED RECEIVED_ERROR TIMEOUT UNKNOWN" {
		t.Errorf("names %q", got)
	}
}

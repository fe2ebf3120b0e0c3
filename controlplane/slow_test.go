package controlplane

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inboardmesh/inboard/internal/memnet"
)

// slowLink is a connection of which one byte a second is read, while it is slow.
type slowLink struct {
	net.Conn
	slow *atomic.Bool
}

func (l slowLink) Read(p []byte) (int, error) {
	if l.slow.Load() && len(p) > 0 {
		time.Sleep(time.Second)
		if l.slow.Load() {
			p = p[:1]
		}
	}
	return l.Conn.Read(p)
}

func dialSlow(t *testing.T, network *memnet.Network, slow *atomic.Bool) *grpc.ClientConn {
	t.Helper()
	return dial(t, network, "plaintext:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := network.DialContext(ctx, "mem", address)
			return slowLink{Conn: conn, slow: slow}, err
		}))
}

// Clients of both protocols that read one byte a second: those beside them get every
// change at once, no change waits for them in memory, one that is fast again gets what
// it was owed and then the latest alone, and one that stays slow is sent away. It is no
// parallel test, for it looks at the heap.
func TestClientsThatReadAByteASecondHarmNobody(t *testing.T) { //nolint:paralleltest // it looks at the heap
	synctest.Test(t, func(t *testing.T) {
		const services, endpoints, changes = 10, 120, 10
		var all []string
		for i := range services {
			all = append(all, cluster(fmt.Sprintf("s%d", i)))
		}
		slices.Sort(all)
		s := mustNew(t, Config{Files: shops(services, endpoints)})
		network := serveMemory(t, s)
		first := []string{cluster("s0")}
		goodDelta := newDelta(t, dial(t, network, "plaintext:1"), node("good", ""))
		goodDelta.subscribe(eds, first...)
		goodDelta.want(eds, first, nil)
		goodWorld := newSotw(t, dial(t, network, "plaintext:1"), node("good", ""))
		goodWorld.subscribe(eds, first...)
		goodWorld.want(eds, first, first...)

		var fastAgain, forEver atomic.Bool
		delta := newDelta(t, dialSlow(t, network, &fastAgain), node("slow", ""))
		world := newSotw(t, dialSlow(t, network, &fastAgain), node("slow", ""))
		lost := newDelta(t, dialSlow(t, network, &forEver), node("lost", ""))
		lostWorld := newSotw(t, dialSlow(t, network, &forEver), node("lost", ""))
		fastAgain.Store(true)
		forEver.Store(true)
		delta.subscribe(eds, all...)
		world.subscribe(eds, all...)
		lost.subscribe(eds, all...)
		lostWorld.subscribe(eds, all...)
		synctest.Wait()
		before, sent := heap(), s.Status().Totals.Resources

		for i := range changes {
			files := shops(services, endpoints+1+i%2) // all of them change
			files[0] = service("s0", fmt.Sprintf("10.8.8.%d", i+1))
			mustUpdate(t, s, files...)
			start := time.Now()
			goodDelta.want(eds, first, nil)
			goodWorld.want(eds, first, first...)
			synctest.Wait()
			if took := time.Since(start); took != 0 {
				t.Errorf("change %d: the others waited for %v", i, took)
			}
			time.Sleep(time.Second)
		}
		if got := s.Status().Totals.Resources - sent; got != 2*changes {
			t.Errorf("%d resources were sent for %d changes that two clients read", got, changes)
		}
		// Each change is some 100 kB for each of the four.
		if grown := heap() - before; grown > 2<<20 {
			t.Errorf("the heap has grown by %d bytes", grown)
		}

		fastAgain.Store(false)
		delta.want(eds, all, nil)
		world.want(eds, all, all...)
		latest := fmt.Sprintf("10.8.8.%d", changes)
		if got := delta.want(eds, all, nil).String(); !strings.Contains(got, latest) {
			t.Error("delta: it is not the latest")
		}
		if got := world.want(eds, all, all...).String(); !strings.Contains(got, latest) {
			t.Error("state of the world: it is not the latest")
		}
		delta.quiet()
		world.quiet()

		time.Sleep(stallTime)
		synctest.Wait()
		clients := s.Status().Clients
		if len(clients) != 4 || slices.ContainsFunc(clients, func(c ClientStatus) bool { return c.Namespace == "lost" }) {
			t.Errorf("clients %+v, want the four that read", clients)
		}
		goodDelta.quiet()
		goodWorld.quiet()
	})
}

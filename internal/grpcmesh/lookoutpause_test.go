package grpcmesh

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/balancer"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/upstream"
	"github.com/inboardmesh/inboard/observe"
)

// published counts the pickers that a channel gets.
type published struct {
	balancer.ClientConn

	n atomic.Int64
}

func (p *published) UpdateState(balancer.State) { p.n.Add(1) }

// Ten thousand endpoints that become fit within a second wake the calls that wait
// hundred times, and at the first and at the last of them.
func TestEndpointsThatBecomeFitDoNotStorm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := upstream.NewManager(upstream.Options{Hooks: &observe.Hooks{}})
		defer m.Close()
		c := m.Hold(map[string]discovery.ClusterResult{"c": {Cluster: &discovery.Cluster{Name: "c"}}})["c"]
		channel := &published{}
		p := &policy{cc: channel, conns: make(map[*upstream.Endpoint][]*subConn)}
		defer p.Close()
		p.lookOut(c, nil)
		p.fit()
		if channel.n.Load() != 1 {
			t.Errorf("woken %d times by the first", channel.n.Load())
		}
		for range 10_000 {
			p.lookOut(c, nil)
			p.fit()
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(lookoutPause)
		synctest.Wait()
		if channel.n.Load() < 90 || channel.n.Load() > 102 {
			t.Errorf("woken %d times by ten thousand in a second", channel.n.Load())
		}
		before := channel.n.Load()
		p.fit() // nobody waits
		if channel.n.Load() != before {
			t.Error("woken although nobody waits")
		}
	})
}

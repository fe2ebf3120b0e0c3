package meshtest

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// closeTimeout bounds how long the test's cleanup waits for the connections of a
// closed server: net/http ends each within half a second, or something is wrong.
const closeTimeout = 20 * time.Second

// connections counts those that an instance's HTTP servers have goroutines for, those
// of killed servers included. [http.Server.Close] does not wait for them: one that was
// answered before its request was read pauses for half a second, so that the caller
// gets the answer before it gets a reset.
type connections struct {
	mu    sync.Mutex
	open  int           // guarded by mu
	ended chan struct{} // guarded by mu; closed when none is open; nil if nobody waits
}

// changed is for [http.Server.ConnState]. A hijacked connection is its handler's.
func (c *connections) changed(_ net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.open++
	case http.StateClosed, http.StateHijacked:
		c.open--
		if c.open == 0 && c.ended != nil {
			close(c.ended)
			c.ended = nil
		}
	case http.StateActive, http.StateIdle:
	}
}

// wait returns how many are left: none, unless the time is over. It is called once,
// when no server accepts any more.
func (c *connections) wait() (left int) {
	c.mu.Lock()
	if c.open == 0 {
		c.mu.Unlock()
		return 0
	}
	ended := make(chan struct{})
	c.ended = ended
	c.mu.Unlock()
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// end waits for the connections of the killed instance.
func (i *Instance) end() {
	if left := i.served.wait(); left > 0 {
		i.world.tb.Errorf("meshtest: %s: %d connections are still served %v after the server was closed", i.name, left, closeTimeout)
	}
}

package controlplane

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stallTime is how long a client may say nothing about a response of a type. A
// client answers what it was sent at once, accepted or not. One that does not read
// holds the response in memory for nothing: it is told to come again. It is long
// enough for the largest response over a slow link.
const stallTime = 2 * time.Minute

// firstRequestTime is how long a stream may be open without a request. A client sends
// one at once; a stream without any is nobody's.
const firstRequestTime = 30 * time.Second

// answers ends a stream whose client does not answer. It is guarded by the client's
// lock, but for stalled.
type answers struct {
	stalled chan struct{} // closed by end, when it is over
	end     func()
	timer   *time.Timer // nil while nothing waits
	waiting int         // types with a response that was not answered
}

func newAnswers() answers {
	stalled := make(chan struct{})
	return answers{stalled: stalled, end: sync.OnceFunc(func() { close(stalled) })}
}

// sentLocked notes a response of a type.
func (p *answers) sentLocked(state *typeState) {
	if state.waiting {
		return
	}
	state.waiting = true
	if p.waiting++; p.waiting == 1 {
		p.timer = time.AfterFunc(stallTime, p.end)
	}
}

// heardLocked notes a request of a type. Whatever it says, the client is there.
func (p *answers) heardLocked(state *typeState) {
	if !state.waiting {
		return
	}
	state.waiting = false
	if p.waiting--; p.waiting == 0 {
		p.stopLocked()
		return
	}
	if p.timer.Stop() { // or it is over already
		p.timer.Reset(stallTime)
	}
}

func (p *answers) stopLocked() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// run runs the loop of a stream and returns how it ended, or that its client does
// not answer. A send that waits for a client that does not read ends only with the
// stream, and that ends when this returns: so the loop is run on a goroutine of its
// own, which the server waits for in Close.
func (c *client) run(loop func() error) error {
	done, err := c.server.begin()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	ended := make(chan error, 1)
	go func() { // ends with the stream
		defer done()
		ended <- loop()
	}()
	select {
	case <-c.silent:
		c.server.silent.Add(1)
		return status.Errorf(codes.Unavailable, "no request came within %v", firstRequestTime)
	case err := <-ended:
		return c.outcome(err)
	case <-c.answers.stalled:
		c.server.stalls.Add(1)
		c.logger().Warn("client does not answer what it is sent: its stream is ended", "waited", stallTime)
		return status.Errorf(codes.Unavailable, "a response was not answered within %v", stallTime)
	case <-c.ctx.Done():
	}
	// The loop ends by itself, unless it waits for a client that does not read.
	grace := time.NewTimer(time.Second)
	defer grace.Stop()
	select {
	case err := <-ended:
		return c.outcome(err)
	case <-grace.C:
		return c.outcome(status.Error(codes.Unavailable, context.Cause(c.ctx).Error()))
	}
}

package calltest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Dying is servers of HTTP/2 that do to their streams and connections whatever they may:
// streams are refused at every point, fewer or none are allowed for a while, connections
// go with a GOAWAY that excludes some of their streams. If it is cruel, streams and
// connections end that were not certified to be unprocessed, too. What the streams say is
// the test's.
type Dying struct {
	Cruel bool

	mu        sync.Mutex
	random    *rand.Rand     // guarded by mu
	processed map[string]int // guarded by mu; by the number of the call
	deaths    map[string]int // guarded by mu; by how
}

// NewDying returns servers whose fates are drawn from a seed.
func NewDying(seed uint64, cruel bool) *Dying {
	return &Dying{
		Cruel: cruel, random: rand.New(rand.NewPCG(seed, 1)),
		processed: make(map[string]int), deaths: make(map[string]int),
	}
}

// Fate draws one of n, of which those that have a name are counted.
func (d *Dying) Fate(n int, names ...string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.random.IntN(n)
	if i >= len(names) {
		return ""
	}
	d.deaths[names[i]]++
	return names[i]
}

// Pause lasts for less than most.
func (d *Dying) Pause(most time.Duration) {
	d.mu.Lock()
	n := time.Duration(d.random.Int64N(int64(most)))
	d.mu.Unlock()
	time.Sleep(n) //nolint:forbidigo // a server that takes its time, in a bubble
}

// Processed is how often a call was processed.
func (d *Dying) Processed(number string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.processed[number]
}

// Deaths is how streams and connections have ended, as a text, and in how many ways.
func (d *Dying) Deaths() (text string, ways int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprint(d.deaths), len(d.deaths)
}

// Serve accepts connections until ln is closed, and returns when serve has for all.
func (d *Dying) Serve(ln net.Listener, serve func(net.Conn)) {
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { serve(conn) })
	}
}

// DyingConn is one of their connections.
type DyingConn struct {
	*Dying

	// Answers are what is to end before the connection does.
	Answers sync.WaitGroup

	conn    net.Conn
	writing sync.Mutex
	framer  *http2.Framer // its writes are guarded by writing
	last    uint32        // guarded by writing; the last stream that is served, 0 for all
	highest uint32        // guarded by writing; of those that were processed
}

// Conn takes a connection over, whose frames Serve reads.
func (d *Dying) Conn(conn net.Conn) *DyingConn {
	c := &DyingConn{Dying: d, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return c
}

// Serve greets the client, which may have four streams, and hands what it sends on until
// the connection ends: the number of each call that begins, which is its header
// "x-number", and pieces of its body, of which the last one is the end. Pings are answered,
// and windows kept open.
func (c *DyingConn) Serve(begin func(frame *http2.MetaHeadersFrame, number string), data func(id uint32, piece []byte, end bool)) {
	defer c.Close()
	defer c.Answers.Wait()
	if _, err := io.ReadFull(c.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	c.Allow(4)
	c.Say(func(f *http2.Framer) error { return f.WriteSettingsAck() })
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if !frame.IsAck() {
				c.Say(func(f *http2.Framer) error { return f.WritePing(true, frame.Data) })
			}
		case *http2.MetaHeadersFrame:
			number := ""
			for _, field := range frame.RegularFields() {
				if field.Name == "x-number" {
					number = field.Value
				}
			}
			begin(frame, number)
			if frame.StreamEnded() {
				data(frame.StreamID, nil, true)
			}
		case *http2.DataFrame:
			if n := frame.Length; n > 0 {
				c.Say(func(f *http2.Framer) error {
					return errors.Join(f.WriteWindowUpdate(0, n), f.WriteWindowUpdate(frame.StreamID, n))
				})
			}
			data(frame.StreamID, frame.Data(), frame.StreamEnded())
		}
	}
}

// Say writes frames one writer at a time, and reports whether the connection has not ended.
func (c *DyingConn) Say(f func(f *http2.Framer) error) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	return f(c.framer) == nil
}

// Allow is how many streams there may be.
func (c *DyingConn) Allow(streams uint32) {
	c.Say(func(f *http2.Framer) error {
		return f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
	})
}

// GoAway excludes the streams after the last one, but none that was processed. The client
// ends the connection behind the others.
func (c *DyingConn) GoAway(last uint32) {
	c.Say(func(f *http2.Framer) error {
		if c.last == 0 {
			c.last = max(last, c.highest)
		}
		return f.WriteGoAway(c.last, http2.ErrCodeNo, nil)
	})
}

// IsLast reports whether no stream after this one is served.
func (c *DyingConn) IsLast(id uint32) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.last == id
}

// Process reports whether the call was not excluded, and is processed therefore.
func (c *DyingConn) Process(id uint32, number string) bool {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.last > 0 && id > c.last {
		return false
	}
	c.highest = max(c.highest, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.processed[number]++
	return true
}

// Reset ends a stream.
func (c *DyingConn) Reset(id uint32, code http2.ErrCode) {
	c.Say(func(f *http2.Framer) error { return f.WriteRSTStream(id, code) })
}

// Begin is what may happen to a connection at the beginning of a stream. It reports
// whether the stream was refused.
func (c *DyingConn) Begin(id uint32, fate string) (refused bool) {
	switch fate {
	case "refused at its headers":
		c.Reset(id, http2.ErrCodeRefusedStream)
		return true
	case "GOAWAY without the stream":
		c.GoAway(max(id, 7) - 6)
	case "GOAWAY with the stream":
		c.GoAway(id)
	case "no more streams for a while":
		c.Allow(0)
		c.Answers.Go(func() {
			c.Pause(50 * time.Millisecond)
			c.Allow(3)
		})
	case "fewer streams":
		c.Allow(1)
	case "more streams":
		c.Allow(6)
	}
	return false
}

// Beginnings are the fates that Begin knows.
func Beginnings() []string {
	return []string{"refused at its headers", "GOAWAY without the stream", "GOAWAY with the stream", "no more streams for a while", "fewer streams", "more streams"}
}

// StopReading makes the connection end.
func (c *DyingConn) StopReading() { _ = c.conn.SetReadDeadline(time.Now()) }

// Close ends the connection at once.
func (c *DyingConn) Close() { _ = c.conn.Close() }

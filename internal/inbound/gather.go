package inbound

import (
	"net"
	"runtime"
	"sync/atomic"
)

const (
	headersType = 1
	// What is written at once has at least gatherFrom bytes, and less than gatherBelow, if
	// it is worth while to look for more. gRPC itself lets others go on before it writes less
	// than 1,000 bytes, and a record of TLS has 16 KiB at most.
	gatherFrom  = 1000
	gatherBelow = 16 << 10
)

// GatheringConn is the [GoAwayConn] of a gRPC server, of which one goroutine writes the
// answers, as soon as there is one. Requests that have come together are answered one after
// the other, so that each answer of a thousand bytes was a record and a system call of its
// own. It lets the others that are being served go on, once, when an answer is written: what
// they have by then is written together. What is ready is never kept back for that, and
// nothing is waited for that cannot run, or after a request that came alone.
type GatheringConn struct {
	GoAwayConn

	in frames // of the goroutine that reads
	// arrived counts the requests that have come since an answer was written last.
	arrived atomic.Int32
	// yield lets other goroutines run.
	yield func()
}

// Gathering returns the connection that a gRPC server is to serve instead of conn.
func Gathering(conn net.Conn) *GatheringConn {
	return &GatheringConn{
		GoAwayConn: GoAwayConn{Conn: conn},
		in:         frames{body: len(preface)}, yield: runtime.Gosched,
	}
}

func (c *GatheringConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		var body []byte
		if body, rest = c.in.next(rest); body == nil && c.in.have == 0 && c.in.header[3] == headersType {
			c.arrived.Add(1)
		}
	}
	return n, err
}

func (c *GatheringConn) Write(p []byte) (int, error) {
	n, err := c.GoAwayConn.Write(p)
	if len(p) >= gatherFrom && len(p) < gatherBelow && c.arrived.Swap(0) > 1 {
		c.yield()
	}
	return n, err
}

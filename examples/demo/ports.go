package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// ports is a block of ports on loopback that belongs to one demo: nobody but
// its own processes takes them between the choice of a port and the moment when
// a process listens there, nor while that process is started again. They are
// below those that systems give to outgoing connections and to listeners that
// do not care.
type ports struct {
	claim net.Listener // of the block's first port, as long as the demo runs
	next  int
	end   int // the first port of the next block
}

const (
	lowestPort = 20000
	blockSize  = 32
	blocks     = 300
)

// claimPorts takes a block that no other demo has. The caller calls release.
func claimPorts(ctx context.Context) (*ports, error) {
	var last error
	for _, block := range rand.Perm(blocks) {
		first := lowestPort + block*blockSize
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(first))
		if err == nil {
			return &ports{claim: ln, next: first + 1, end: first + blockSize}, nil
		}
		last = err
	}
	return nil, fmt.Errorf("all %d blocks of ports from %d on are taken: %w", blocks, lowestPort, last)
}

// address returns an address of the block that it has not returned before and
// that nobody listens on.
func (p *ports) address(ctx context.Context) (address, port string, err error) {
	for p.next < p.end {
		number := p.next
		p.next++
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(number))
		if err == nil { // else another program has it
			return loopback(number), strconv.Itoa(number), ln.Close()
		}
	}
	return "", "", fmt.Errorf("no free port is left in %d to %d", p.end-blockSize, p.end-1)
}

// release lets another demo have the block.
func (p *ports) release() error { return p.claim.Close() }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

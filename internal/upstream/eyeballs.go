package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/inboardmesh/inboard/discovery"
)

// attemptDelay is how long one address is waited for before the next is tried
// beside it (RFC 8305, section 5; gRFC A61). Envoy waits for 300 ms.
const attemptDelay = 250 * time.Millisecond

// inTurn returns addresses with those of both families by turns, otherwise in their
// order (RFC 8305, section 4).
func inTurn(addresses []string, families discovery.Families) []string {
	if len(addresses) < 2 {
		return addresses
	}
	first := families.First
	if first == discovery.AnyFamily {
		first = familyOf(addresses[0])
	}
	var own, other []string
	for _, a := range addresses {
		if familyOf(a) == first {
			own = append(own, a)
		} else {
			other = append(other, a)
		}
	}
	sorted := make([]string, 0, len(addresses))
	n := min(int(max(families.Count, 1)), len(own))
	sorted, own = append(sorted, own[:n]...), own[n:]
	for len(own)+len(other) > 0 {
		for _, list := range []*[]string{&other, &own} {
			if len(*list) > 0 {
				sorted, *list = append(sorted, (*list)[0]), (*list)[1:]
			}
		}
	}
	return sorted
}

func familyOf(address string) discovery.Family {
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Unmap().Is4() {
		return discovery.IPv4
	}
	return discovery.IPv6
}

type attempted struct {
	conn net.Conn
	err  error
}

// dialFirst connects to the first of some addresses that answers. Each is tried when
// the one before has failed, or has not answered for a while; the others are given
// up then.
func (e *Endpoint) dialFirst(ctx context.Context, addresses []string) (net.Conn, error) {
	dial := e.cluster.manager.options.Dial
	if len(addresses) == 1 {
		return dial(ctx, "tcp", addresses[0])
	}
	attempts, cancel := context.WithCancel(ctx)
	results := make(chan attempted, len(addresses)) // nobody waits to send
	begun, ended := 0, 0
	next := func() {
		address := addresses[begun]
		begun++
		go func() { // ends with the dial, which dismiss waits for
			conn, err := dial(attempts, "tcp", address)
			results <- attempted{conn, err}
		}()
	}
	dismiss := func() {
		for ; ended < begun; ended++ {
			if late := <-results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}
	defer func() {
		cancel()
		if ended < begun && !e.cluster.manager.background(dismiss) {
			dismiss()
		}
	}()
	delay := time.NewTimer(attemptDelay)
	defer delay.Stop()
	next()
	var errs []error
	for {
		select {
		case got := <-results:
			if ended++; got.err == nil {
				return got.conn, nil
			}
			if errs = append(errs, got.err); ctx.Err() != nil {
				return nil, errors.Join(errs...)
			}
		case <-delay.C:
		case <-ctx.Done():
			return nil, errors.Join(append(errs, context.Cause(ctx))...)
		}
		switch {
		case begun < len(addresses):
			next()
			delay.Reset(attemptDelay)
		case ended == begun:
			return nil, errors.Join(errs...)
		}
	}
}

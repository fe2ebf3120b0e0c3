package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/inboardmesh/inboard/tls/istioca"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// certificate is one that a payment showed in a handshake.
type certificate struct {
	id      string
	serial  string
	expires time.Time
}

// observer looks at the certificates of the payments as a peer does: it has an
// identity of its own, connects with mutual TLS, and goes away again. Safe for
// concurrent use.
type observer struct {
	world    *world
	identity *istioca.Source
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu   sync.Mutex
	seen map[string][]certificate // guarded by mu; by payment, the first one first
}

// observe starts looking. The caller calls end.
func (w *world) observe(ctx context.Context) (*observer, error) {
	const name = "observer"
	if _, err := w.join(ctx, name, name, "app="+name); err != nil {
		return nil, err
	}
	identity, err := istioca.New(ctx, istioca.Config{ServerURI: w.planeAddresses[0], TokenFile: w.tokenFile(name), RootFile: w.rootFile()})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	o := &observer{world: w, identity: identity, stop: stop, seen: make(map[string][]certificate)}
	o.wg.Go(func() { // until end
		ticker := time.NewTicker(500 * time.Millisecond)
		defer ticker.Stop()
		for {
			for _, p := range w.payments {
				o.look(ctx, p)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return o, nil
}

func (o *observer) end() {
	o.stop()
	o.wg.Wait()
	o.identity.Close()
}

// look notes the certificate of a payment, unless it is down at the moment.
func (o *observer) look(ctx context.Context, p *payment) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	found, err := o.certificate(ctx, p.addresses[0])
	if err != nil {
		return // it was killed, or is busy: the next look will tell
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if seen := o.seen[p.name]; len(seen) == 0 || seen[len(seen)-1].serial != found.serial {
		o.seen[p.name] = append(seen, found)
	}
}

func (o *observer) certificate(ctx context.Context, address string) (certificate, error) {
	config, err := meshtls.ClientConfig(meshtls.ClientParams{
		Identity: o.identity, Roots: o.identity, NextProtos: []string{"http/1.1"},
		Authorize: meshtls.AuthorizeIDs(meshtls.MustID(paymentID)),
	})
	if err != nil {
		return certificate{}, err
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return certificate{}, err
	}
	defer conn.Close()
	secure, ok := conn.(*tls.Conn)
	if !ok {
		return certificate{}, fmt.Errorf("%s: not TLS", address)
	}
	leaf := secure.ConnectionState().PeerCertificates[0]
	return certificate{id: leaf.URIs[0].String(), serial: fmt.Sprintf("%032x", leaf.SerialNumber), expires: leaf.NotAfter}, nil
}

// certificates are those that a payment has shown so far, the first one first.
func (o *observer) certificates(p *payment) []certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen[p.name])
}

package inbound

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/inboardmesh/inboard/discovery"
	"github.com/inboardmesh/inboard/internal/filter/service"
	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/upstream"
)

// hold takes over the clusters that the listener's filters call, and gives those
// back that they called before.
func (ln *Listener) hold(results map[string]discovery.ClusterResult) {
	upstreams := ln.owner.options.Upstreams
	if upstreams == nil {
		return
	}
	next := upstreams.Hold(results)
	ln.mu.Lock()
	old := ln.held
	if ln.released {
		old = next // it was on its way when the listener ended
	} else {
		ln.held = next
	}
	ln.mu.Unlock()
	// Only now, so that a cluster in both is never without a holder.
	upstreams.Release(old)
}

// release gives the clusters back, for good.
func (ln *Listener) release() {
	ln.mu.Lock()
	old := ln.held
	ln.held, ln.released = nil, true
	ln.mu.Unlock()
	if ln.owner.options.Upstreams != nil {
		ln.owner.options.Upstreams.Release(old)
	}
}

// sameChains reports whether two versions of a listener differ in their clusters
// only: what is compiled stays, with what it has counted and cached.
func sameChains(a, b *discovery.Inbound) bool {
	return a != nil && b != nil && a.Default == b.Default && len(a.Chains) == len(b.Chains) &&
		(len(a.Chains) == 0 || &a.Chains[0] == &b.Chains[0])
}

// cluster finds a cluster for filters, nil if it is not configured.
func (l *Listeners) cluster(name string) *upstream.Cluster {
	if l.options.Upstreams == nil {
		return nil
	}
	return l.options.Upstreams.Find(name)
}

// fetchKeys gets a key set, in one attempt.
func (l *Listeners) fetchKeys(ctx context.Context, from *discovery.JWTRemoteKeys) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+from.Host+from.Path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := l.services.Do(ctx, from.Cluster, req, token.MaxKeySet, from.Scheme == "https")
	switch {
	case err != nil:
		return nil, err
	case resp.Status >= 300 && resp.Status < 400:
		// Wherever it leads, it is not what was configured.
		return nil, service.Because(service.Status, errors.New("redirects are not followed"))
	case resp.Status != http.StatusOK:
		return nil, service.Because(service.Status, fmt.Errorf("status %d", resp.Status))
	}
	return resp.Body, nil
}

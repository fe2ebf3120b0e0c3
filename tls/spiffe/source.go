package spiffe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/inboardmesh/inboard/internal/watch"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Source is the workload's identity, kept fresh. Safe for concurrent use.
type Source struct {
	config Config
	state  watch.Value[state]
	cancel context.CancelFunc
	loop   sync.WaitGroup

	mu     sync.Mutex
	expiry *time.Timer // guarded by mu; nil without a certificate
	closed bool        // guarded by mu
}

// state is what Identity returns; err is set if identity is nil.
type state struct {
	identity *meshtls.Identity
	err      error
}

var _ meshtls.Source = (*Source)(nil)

// New returns a source that has its first certificate. ctx bounds the wait for
// that, in which a broken stream is opened again, and not the source's life: the
// source must be closed. The error says what the last attempt failed of.
func New(ctx context.Context, config Config) (*Source, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	client, err := workloadapi.New(running, workloadapi.WithAddr(config.socket()))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("spiffe_workload_api: %w", err)
	}
	s := &Source{config: config, cancel: cancel}
	s.state.Store(state{err: fmt.Errorf("spiffe_workload_api: no answer from %q yet", config.socket())})
	s.loop.Go(func() { // until Close cancels running
		err := client.WatchX509Context(running, (*watcher)(s))
		if running.Err() == nil {
			s.failed(err)
		}
		_ = client.Close() // nothing is sent over it any more
	})
	for {
		now, changed := s.state.Watch()
		if now.identity != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			s.Close()
			return nil, fmt.Errorf("first certificate: %w: %w", context.Cause(ctx), s.state.Load().err)
		}
	}
}

// Identity returns the current certificate with the roots, and an error once it
// has expired without a successor.
func (s *Source) Identity() (*meshtls.Identity, error) {
	now := s.state.Load()
	if now.identity != nil && time.Now().After(now.identity.NotAfter) {
		return nil, expired(now.identity)
	}
	return now.identity, now.err
}

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (s *Source) Changed() <-chan struct{} {
	_, changed := s.state.Watch()
	return changed
}

// String says what the source is. It keeps fmt from the key, which it would print
// with the unexported fields.
func (*Source) String() string { return "a SPIFFE Workload API source" }

// Close ends the stream and returns when its goroutine has ended. The current
// certificate stays available until it expires, so that handshakes that are
// under way do not fail.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Unlock()
	s.cancel()
	s.loop.Wait()
}

// watcher is a Source as the client of the API sees it.
type watcher Source

var _ workloadapi.X509ContextWatcher = (*watcher)(nil)

// OnX509ContextUpdate takes over what the API has sent.
func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	s := (*Source)(w)
	identity, err := s.identityOf(update)
	if err != nil {
		s.failed(err)
		return
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.state.Store(state{identity: identity})
	s.expiry = time.AfterFunc(time.Until(identity.NotAfter)+time.Nanosecond, func() { s.expire(identity) })
	s.mu.Unlock()
	s.report(identity, nil)
}

// OnX509ContextWatchError notes that the stream broke or that it said nothing
// useful. The client opens it again by itself.
func (w *watcher) OnX509ContextWatchError(err error) { (*Source)(w).failed(err) }

// failed keeps what there is: nothing was withdrawn.
func (s *Source) failed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	err = fmt.Errorf("spiffe_workload_api: %q: %w", s.config.socket(), err)
	s.mu.Lock()
	now := s.state.Load()
	if now.identity == nil && !s.closed {
		s.state.Store(state{err: err})
	}
	s.mu.Unlock()
	s.report(now.identity, err)
}

// expire takes a certificate away that has not been followed by another.
func (s *Source) expire(identity *meshtls.Identity) {
	s.mu.Lock()
	if s.closed || s.state.Load().identity != identity {
		s.mu.Unlock()
		return
	}
	err := expired(identity)
	s.state.Store(state{err: err})
	s.mu.Unlock()
	s.report(identity, err)
}

func expired(identity *meshtls.Identity) error {
	return fmt.Errorf("spiffe_workload_api: certificate of %q expired at %s and was not replaced",
		identity.ID, identity.NotAfter.Format(time.RFC3339))
}

func (s *Source) report(identity *meshtls.Identity, err error) {
	if s.config.OnChange == nil {
		return
	}
	event := observe.CertificateEvent{Source: s.config.Name, Err: err}
	if identity != nil {
		event.ID, event.NotAfter = identity.ID.String(), identity.NotAfter
	}
	s.config.OnChange(event)
}

// identityOf makes an identity of what the API has sent.
func (s *Source) identityOf(update *workloadapi.X509Context) (*meshtls.Identity, error) {
	svid, err := s.choose(update.SVIDs)
	if err != nil {
		return nil, err
	}
	own, ok := update.Bundles.Get(svid.ID.TrustDomain())
	if !ok {
		return nil, fmt.Errorf("no bundle of the own trust domain %q", svid.ID.TrustDomain().Name())
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	identity, err := meshtls.NewIdentity(cert, own.X509Authorities())
	if err != nil {
		return nil, err
	}
	federated := make(map[string][]*x509.Certificate)
	for _, bundle := range update.Bundles.Bundles() {
		if domain := bundle.TrustDomain(); domain != svid.ID.TrustDomain() {
			federated[domain.Name()] = bundle.X509Authorities()
		}
	}
	return identity.WithFederated(federated), nil
}

func (s *Source) choose(svids []*x509svid.SVID) (*x509svid.SVID, error) {
	if len(svids) == 0 {
		return nil, errors.New("the workload has no SVID")
	}
	if s.config.ID == "" {
		return svids[0], nil
	}
	for _, svid := range svids {
		if svid.ID.String() == s.config.ID {
			return svid, nil
		}
	}
	return nil, fmt.Errorf("the workload has no SVID %q", s.config.ID)
}

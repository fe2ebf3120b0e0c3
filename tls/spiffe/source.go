package spiffe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/inboardmesh/inboard/tls/internal/keeper"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Source is the workload's identity, kept fresh. Safe for concurrent use.
type Source struct {
	config Config
	kept   *keeper.Keeper
	cancel context.CancelFunc
	loop   sync.WaitGroup
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
	s := &Source{
		config: config, cancel: cancel,
		kept: keeper.New(keeper.Config{
			Plugin: "spiffe_workload_api", Empty: fmt.Sprintf("no answer from %q yet", config.socket()),
			Unreplaced: "the agent has sent no other", Name: config.Name, OnChange: config.OnChange,
		}),
	}
	s.loop.Go(func() { // until Close cancels running
		err := client.WatchX509Context(running, (*watcher)(s))
		if running.Err() == nil {
			s.fail(err)
		}
		_ = client.Close() // nothing is sent over it any more
	})
	if err := s.kept.Wait(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Identity returns the current certificate with the roots, and an error once it
// has expired without a successor.
func (s *Source) Identity() (*meshtls.Identity, error) { return s.kept.Identity() }

// Changed returns a channel that is closed at the next change of what Identity
// returns.
func (s *Source) Changed() <-chan struct{} { return s.kept.Changed() }

// String says what the source is. It keeps fmt from the key, which it would print
// with the unexported fields.
func (*Source) String() string { return "a SPIFFE Workload API source" }

// Close ends the stream and returns when its goroutine has ended. It waits for OnChange,
// which must not call it, and for no answer. The current certificate stays available until
// it expires, so that handshakes that are under way do not fail.
func (s *Source) Close() {
	s.kept.Close()
	s.cancel()
	s.loop.Wait()
}

func (s *Source) fail(err error) { s.kept.Fail(fmt.Errorf("%q: %w", s.config.socket(), err)) }

// watcher is a Source as the client of the API sees it.
type watcher Source

var _ workloadapi.X509ContextWatcher = (*watcher)(nil)

// OnX509ContextUpdate takes over what the API has sent.
func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	s := (*Source)(w)
	identity, err := s.identityOf(update)
	if err != nil {
		s.fail(err)
		return
	}
	if s.kept.Set(identity) {
		s.kept.Report(identity, nil)
	}
}

// OnX509ContextWatchError notes that the stream broke or that it said nothing
// useful. The client opens it again by itself.
func (w *watcher) OnX509ContextWatchError(err error) { (*Source)(w).fail(err) }

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

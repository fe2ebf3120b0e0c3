package sds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/inboardmesh/inboard/internal/watch"
	"github.com/inboardmesh/inboard/observe"
	"github.com/inboardmesh/inboard/tls/meshtls"
)

// A stream that broke is opened again after a pause that grows with each failure in
// a row.
const (
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
)

// Source is the workload's identity, kept fresh. Safe for concurrent use.
type Source struct {
	config  Config
	conn    *grpc.ClientConn
	state   watch.Value[state]
	cancel  context.CancelFunc
	streams sync.WaitGroup

	mu     sync.Mutex
	have   material    // guarded by mu; the newest of each secret
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
	// The socket's permissions are what protects it.
	conn, err := grpc.NewClient(config.Socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: firstBackoff / 2, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff / 2,
		}, MinConnectTimeout: firstBackoff}))
	if err != nil {
		return nil, fmt.Errorf("sds: %w", err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s := &Source{config: config, conn: conn, cancel: cancel}
	s.state.Store(state{err: fmt.Errorf("sds: no answer from %q yet", config.Socket)})
	for _, wanted := range []subscription{
		{source: s, name: orDefault(config.CertificateName, DefaultCertificateName)},
		{source: s, name: orDefault(config.RootName, DefaultRootName), roots: true},
	} {
		s.streams.Go(func() { wanted.run(running) }) // until Close cancels running
	}
	for {
		now, changed := s.state.Watch()
		if now.identity != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			last := s.state.Load().err
			s.Close()
			return nil, fmt.Errorf("first certificate: %w: %w", context.Cause(ctx), last)
		}
	}
}

// Identity returns the current certificate with the roots, and an error once it has
// expired without a successor.
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
func (*Source) String() string { return "an SDS source" }

// Close ends the streams and returns when their goroutines have ended. The current
// certificate stays available until it expires, so that handshakes that are under
// way do not fail.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.mu.Unlock()
	s.cancel()
	s.streams.Wait()
	_ = s.conn.Close() // nothing is sent over it any more
}

// subscription follows one secret. Each has a stream of its own, as Envoy's do.
type subscription struct {
	source *Source
	name   string
	roots  bool
}

// run opens streams until ctx ends.
func (sub subscription) run(ctx context.Context) {
	pause := firstBackoff
	for {
		answered, err := sub.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		sub.source.failed(fmt.Errorf("secret %q: %w", sub.name, err))
		if answered {
			pause = firstBackoff
		}
		timer := time.NewTimer(pause/2 + time.Duration(rand.Int64N(int64(pause/2))))
		pause = min(2*pause, maxBackoff)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// follow takes over what one stream brings, and returns why it ended.
func (sub subscription) follow(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // or the stream would stay open after a mistake
	stream, err := secretv3.NewSecretDiscoveryServiceClient(sub.source.conn).StreamSecrets(ctx)
	if err != nil {
		return false, err
	}
	request := &discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: sub.source.config.NodeID}, TypeUrl: secretURL, ResourceNames: []string{sub.name},
	}
	for {
		if err := stream.Send(request); err != nil {
			_, err = stream.Recv() // which knows why
			return answered, err
		}
		response, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		request = &discoveryv3.DiscoveryRequest{
			TypeUrl: secretURL, ResourceNames: []string{sub.name},
			VersionInfo: request.VersionInfo, ResponseNonce: response.GetNonce(),
		}
		got, ok, err := decodeSecret(response, sub.name, sub.roots)
		if err == nil && ok {
			err = sub.source.learn(got, sub.roots)
		}
		if err != nil {
			sub.source.failed(fmt.Errorf("secret %q: %w", sub.name, err))
			request.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
			continue
		}
		request.VersionInfo = response.GetVersionInfo()
	}
}

// learn takes over one secret. With the other one it makes an identity; what does
// not is rejected, unless the other one has to come first.
func (s *Source) learn(got material, roots bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	next := s.have
	if roots {
		next.roots = got.roots
	} else {
		next.certificate = got.certificate
	}
	if next.roots == nil || next.certificate.Certificate == nil {
		s.have = next
		s.mu.Unlock()
		return nil
	}
	identity, err := meshtls.NewIdentity(next.certificate, next.roots)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.have = next
	if same(s.state.Load().identity, identity) { // it was sent again
		s.mu.Unlock()
		return nil
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.state.Store(state{identity: identity})
	s.expiry = time.AfterFunc(time.Until(identity.NotAfter)+time.Nanosecond, func() { s.expire(identity) })
	s.mu.Unlock()
	s.report(identity, nil)
	return nil
}

func same(a, b *meshtls.Identity) bool {
	return a != nil && a.RootsKey == b.RootsKey &&
		slices.EqualFunc(a.Certificate.Certificate, b.Certificate.Certificate, bytes.Equal)
}

// failed keeps what there is: nothing was withdrawn.
func (s *Source) failed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	err = fmt.Errorf("sds: %q: %w", s.config.Socket, err)
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
	return fmt.Errorf("sds: certificate of %q expired at %s and was not replaced",
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

package sds

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

	"github.com/inboardmesh/inboard/internal/secret"
	"github.com/inboardmesh/inboard/tls/internal/keeper"
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
	kept    *keeper.Keeper
	conn    *grpc.ClientConn
	cancel  context.CancelFunc
	streams sync.WaitGroup

	mu   sync.Mutex
	have secret.Secret // guarded by mu; the newest of each secret
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
	s := &Source{
		config: config, conn: conn, cancel: cancel,
		kept: keeper.New(keeper.Config{
			Plugin: "sds", Empty: fmt.Sprintf("no answer from %q yet", config.Socket), Unreplaced: "the agent has sent no other",
			Name: config.Name, OnChange: config.OnChange,
		}),
	}
	for _, wanted := range []subscription{
		{source: s, name: orDefault(config.CertificateName, DefaultCertificateName)},
		{source: s, name: orDefault(config.RootName, DefaultRootName), roots: true},
	} {
		s.streams.Go(func() { wanted.run(running) }) // until Close cancels running
	}
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
func (*Source) String() string { return "an SDS source" }

// Close ends the streams and returns when their goroutines have ended. It waits for
// OnChange, which must not call it, and for no answer. The current certificate stays
// available until it expires, so that handshakes that are under way do not fail.
func (s *Source) Close() {
	s.kept.Close()
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
		sub.fail(err)
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

func (sub subscription) fail(err error) {
	sub.source.kept.Fail(fmt.Errorf("%q: secret %q: %w", sub.source.config.Socket, sub.name, err))
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
		Node: &corev3.Node{Id: sub.source.config.NodeID}, TypeUrl: secret.URL, ResourceNames: []string{sub.name},
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
			TypeUrl: secret.URL, ResourceNames: []string{sub.name},
			VersionInfo: request.VersionInfo, ResponseNonce: response.GetNonce(),
		}
		got, err := sub.find(response)
		if err == nil && got != nil {
			err = sub.source.learn(got, sub.roots)
		}
		if err != nil {
			sub.fail(err)
			request.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
			continue
		}
		request.VersionInfo = response.GetVersionInfo()
	}
}

// find returns the secret in a response, nil if it is not there, which changes
// nothing.
func (sub subscription) find(response *discoveryv3.DiscoveryResponse) (*secret.Secret, error) {
	if response.GetTypeUrl() != secret.URL {
		return nil, fmt.Errorf("a response of type %q", response.GetTypeUrl())
	}
	for i, resource := range response.GetResources() {
		if resource.GetTypeUrl() != secret.URL {
			return nil, fmt.Errorf("resource %d is not a secret", i)
		}
		name, got, err := secret.Parse(resource.GetValue())
		switch {
		case name == "":
			return nil, fmt.Errorf("resource %d: %w", i, err)
		case name != sub.name:
			continue
		case err != nil:
			return nil, err
		case sub.roots && got.Roots == nil:
			return nil, errors.New("validation_context: must be set")
		case !sub.roots && got.Roots != nil:
			return nil, errors.New("tls_certificate: must be set")
		}
		return got, nil
	}
	return nil, nil
}

// learn takes over one secret. With the other one it makes an identity; what does
// not is rejected, unless the other one has to come first.
func (s *Source) learn(got *secret.Secret, roots bool) error {
	identity, err := s.combine(got, roots)
	if err == nil && identity != nil {
		s.kept.Report(identity, nil)
	}
	return err
}

// combine returns the identity that is news with the secret, nil if there is none.
func (s *Source) combine(got *secret.Secret, roots bool) (*meshtls.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.have
	if roots {
		next.Roots, next.Revocation = got.Roots, got.Revocation
	} else {
		next.Certificate = got.Certificate
	}
	if next.Roots == nil || next.Certificate.Certificate == nil {
		s.have = next
		return nil, nil
	}
	identity, err := meshtls.NewIdentity(next.Certificate, next.Roots)
	if err != nil {
		return nil, err
	}
	if next.Revocation != nil {
		identity = identity.WithRevocation(next.Revocation)
	}
	s.have = next
	if !s.kept.Set(identity) { // it was sent again
		return nil, nil
	}
	return identity, nil
}

package ca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// tokenAudience is the audience that Istio's workloads ask tokens for.
	tokenAudience = "istio-ca"
	// subjectPrefix begins the subject of a Kubernetes service account token.
	subjectPrefix = "system:serviceaccount:"
	// maxToken bounds what is parsed before anything is known of the sender.
	maxToken = 8 << 10
	// tokenLeeway is how far the clock of the host that made a token may be
	// ahead. It does not prolong the token.
	tokenLeeway = time.Minute
)

// tokens signs and verifies bearer tokens with one key and one algorithm:
// neither is ever taken from the token.
type tokens struct {
	trustDomain string
	signer      jose.Signer
	public      *ecdsa.PublicKey
}

func newTokens(key *ecdsa.PrivateKey, trustDomain string) (*tokens, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("JWT"),
	)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return &tokens{trustDomain: trustDomain, signer: signer, public: &key.PublicKey}, nil
}

func (t *tokens) issuer() string { return "spiffe://" + t.trustDomain }

// IssueToken returns a token that its bearer can exchange, for ttl from now,
// for certificates of the service account, and that opens configuration
// streams for it. Who has it is the service account: hand it over in a file
// that only the workload can read. ttl must be at least a second; tokens
// count whole seconds.
func (c *CA) IssueToken(namespace, serviceAccount string, ttl time.Duration) (string, error) {
	id := Identity{TrustDomain: c.trustDomain, Namespace: namespace, ServiceAccount: serviceAccount}
	if err := id.validate(); err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	if ttl < time.Second {
		return "", fmt.Errorf("issue token: lifetime %v: want at least 1s", ttl)
	}
	return c.tokens.issue(id, ttl)
}

func (t *tokens) issue(id Identity, ttl time.Duration) (string, error) {
	now := time.Now()
	token, err := jwt.Signed(t.signer).Claims(jwt.Claims{
		Issuer:   t.issuer(),
		Subject:  subjectPrefix + id.Namespace + ":" + id.ServiceAccount,
		Audience: jwt.Audience{tokenAudience},
		IssuedAt: jwt.NewNumericDate(now),
		Expiry:   jwt.NewNumericDate(now.Add(ttl)),
		ID:       rand.Text(),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("issue token: %w", err)
	}
	return token, nil
}

// verify returns whose token it is and until when. Its errors never hold a
// part of the token.
func (t *tokens) verify(token string) (Identity, time.Time, error) {
	if len(token) > maxToken {
		return Identity{}, time.Time{}, fmt.Errorf("token is longer than %d bytes", maxToken)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Identity{}, time.Time{}, errors.New("token is not a JWT signed with ES256")
	}
	var claims jwt.Claims
	if err := parsed.Claims(t.public, &claims); err != nil {
		return Identity{}, time.Time{}, errors.New("token is not signed by this CA")
	}
	if claims.Expiry == nil || claims.IssuedAt == nil {
		return Identity{}, time.Time{}, errors.New("token lacks claim exp or iat")
	}
	now := time.Now()
	expiry := claims.Expiry.Time()
	if !now.Before(expiry) {
		return Identity{}, time.Time{}, fmt.Errorf("token expired on %s", expiry.UTC().Format(time.RFC3339))
	}
	expected := jwt.Expected{Issuer: t.issuer(), AnyAudience: jwt.Audience{tokenAudience}, Time: now}
	if err := claims.ValidateWithLeeway(expected, tokenLeeway); err != nil {
		return Identity{}, time.Time{}, fmt.Errorf("token claims: %w", err)
	}
	id, err := t.subject(claims.Subject)
	return id, expiry, err
}

// subject reads the name of a service account as Kubernetes writes it.
func (t *tokens) subject(subject string) (Identity, error) {
	account, found := strings.CutPrefix(subject, subjectPrefix)
	namespace, name, split := strings.Cut(account, ":")
	if !found || !split {
		return Identity{}, fmt.Errorf("token subject %q: want %sNAMESPACE:SERVICE_ACCOUNT", subject, subjectPrefix)
	}
	id := Identity{TrustDomain: t.trustDomain, Namespace: namespace, ServiceAccount: name}
	if err := id.validate(); err != nil {
		return Identity{}, fmt.Errorf("token subject: %w", err)
	}
	return id, nil
}

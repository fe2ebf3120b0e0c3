package ca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultTTL is how long a certificate lives if neither the configuration nor
// the request says otherwise.
const DefaultTTL = 24 * time.Hour

// Config is how to make a [CA]. The zero Config is a CA in memory for the
// trust domain cluster.local.
type Config struct {
	// TrustDomain is the trust domain of every identity. Empty: that of the
	// root in Dir if it names one, else [DefaultTrustDomain]. If the root
	// names another one, New fails.
	TrustDomain string
	// Dir is the directory with the keys; the package comment tells what is
	// in it. It is made on first use. Empty: the keys live in memory.
	Dir string
	// MaxTTL bounds the lifetime of certificates. Zero means [DefaultTTL].
	MaxTTL time.Duration
	// TTL is the lifetime of a certificate whose request does not ask for
	// one. Zero means MaxTTL.
	TTL time.Duration
	// Logger gets what is issued and what is refused, and why. Nil: nothing
	// is logged.
	Logger *slog.Logger
}

// CA issues certificates and tokens. It is safe for concurrent use. It has no
// goroutines and needs no Close.
type CA struct {
	trustDomain string
	ttl, maxTTL time.Duration
	logger      *slog.Logger
	tokens      *tokens
	store       store

	// rotation lets one change of the authority happen at a time. It is held
	// while files are written, and never taken to issue or to verify.
	rotation  sync.Mutex
	authority atomic.Pointer[authority]
}

// New makes a CA, or opens the one in config.Dir. Every problem of the
// configuration is in the error.
func New(config Config) (*CA, error) {
	if config.MaxTTL == 0 {
		config.MaxTTL = DefaultTTL
	}
	if config.TTL == 0 {
		config.TTL = config.MaxTTL
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if err := config.validate(); err != nil {
		return nil, err
	}
	c := &CA{ttl: config.TTL, maxTTL: config.MaxTTL, logger: config.Logger}
	wanted := config.TrustDomain
	if wanted == "" {
		wanted = DefaultTrustDomain
	}
	a, key, err := c.open(config.Dir, wanted)
	if err != nil {
		return nil, fmt.Errorf("CA directory %q: %w", config.Dir, err)
	}
	c.trustDomain = wanted
	if named := trustDomainOf(a.roots[0]); named != "" {
		if config.TrustDomain != "" && config.TrustDomain != named {
			return nil, fmt.Errorf("CA directory %q: its root is for trust domain %q, not %q", config.Dir, named, config.TrustDomain)
		}
		c.trustDomain = named
	}
	c.authority.Store(a)
	c.tokens, err = newTokens(key, c.trustDomain)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c Config) validate() error {
	var errs []error
	if c.TrustDomain != "" {
		errs = append(errs, validateTrustDomain(c.TrustDomain))
	}
	if c.MaxTTL < time.Second {
		errs = append(errs, fmt.Errorf("MaxTTL %v: want at least 1s", c.MaxTTL))
	}
	if c.TTL < time.Second || c.TTL > c.MaxTTL {
		errs = append(errs, fmt.Errorf("TTL %v: want between 1s and MaxTTL %v", c.TTL, c.MaxTTL))
	}
	return errors.Join(errs...)
}

func (c *CA) open(dir, trustDomain string) (*authority, *ecdsa.PrivateKey, error) {
	if dir != "" {
		c.store = directory(dir)
		return directory(dir).open(trustDomain, time.Now())
	}
	c.store = memory{}
	root, err := newRoot(trustDomain, time.Now())
	if err != nil {
		return nil, nil, err
	}
	key, err := newTokenKey()
	if err != nil {
		return nil, nil, err
	}
	return &authority{signer: root, roots: []*x509.Certificate{root.cert}}, key, nil
}

// trustDomainOf returns the trust domain that a signing certificate says it
// is for, or "".
func trustDomainOf(cert *x509.Certificate) string {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "spiffe" || cert.URIs[0].Path != "" {
		return ""
	}
	return cert.URIs[0].Host
}

// TrustDomain returns the trust domain of the identities that the CA issues.
func (c *CA) TrustDomain() string { return c.trustDomain }

// Roots returns the trust bundle, for verification. The caller owns it. Ask
// again for each verification: the bundle changes with a rotation.
func (c *CA) Roots() *x509.CertPool { return c.authority.Load().pool() }

// RootsPEM returns the trust bundle as PEM, the root that signs first. It is
// the content of a workload's root file.
func (c *CA) RootsPEM() []byte { return encodeCertificates(c.authority.Load().roots...) }

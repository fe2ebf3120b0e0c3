package discovery

import (
	"fmt"

	"github.com/inboardmesh/inboard/tls/meshtls"
)

// Secrets are certificates with their keys, or roots, that the control plane sent,
// by their names. What holds roots has no certificate, and the other way round.
type Secrets map[string]*meshtls.Identity

// SecretUse is one place where TLS settings name a secret.
type SecretUse struct {
	Name string
	// Roots tells that it has to hold roots; otherwise a certificate.
	Roots bool
}

// SecretUses are the secrets that the settings name.
func (p *TLSParams) SecretUses() []SecretUse {
	var uses []SecretUse
	if p.IdentitySecret != "" {
		uses = append(uses, SecretUse{Name: p.IdentitySecret})
	}
	if p.RootSecret != "" {
		uses = append(uses, SecretUse{Name: p.RootSecret, Roots: true})
	}
	return uses
}

// SecretUses are the secrets that the cluster's TLS settings name.
func (c *Cluster) SecretUses() []SecretUse {
	var uses []SecretUse
	if c.TLS != nil {
		uses = c.TLS.SecretUses()
	}
	for i := range c.TLSMatches {
		if t := c.TLSMatches[i].TLS; t != nil {
			uses = append(uses, t.SecretUses()...)
		}
	}
	return uses
}

// SecretUses are the secrets that the TLS settings of the chains name.
func (in *Inbound) SecretUses() []SecretUse {
	var uses []SecretUse
	for i := range in.Chains {
		if t := in.Chains[i].TLS; t != nil {
			uses = append(uses, t.SecretUses()...)
		}
	}
	if in.Default != nil && in.Default.TLS != nil {
		uses = append(uses, in.Default.TLS.SecretUses()...)
	}
	return uses
}

// SecretSources are secrets as TLS configurations want them: sources that follow
// what is sent under their names. The zero value has none. One goroutine at a time
// may use it; the sources are safe for concurrent use.
type SecretSources struct {
	byName map[string]*meshtls.Static
}

// Update takes over the newest secrets. Sources of those that are left out keep what
// they have, for whoever still uses them.
func (s *SecretSources) Update(secrets Secrets) {
	if len(secrets)+len(s.byName) == 0 {
		return
	}
	next := make(map[string]*meshtls.Static, len(secrets))
	for name, identity := range secrets {
		source := s.byName[name]
		if source == nil {
			source = meshtls.NewStatic(identity)
		} else if old, err := source.Identity(); err != nil || old != identity {
			source.Set(identity)
		}
		next[name] = source
	}
	s.byName = next
}

// Find returns the source of a secret.
func (s *SecretSources) Find(name string) (meshtls.Source, error) {
	source := s.byName[name]
	if source == nil {
		return nil, fmt.Errorf("secret %q: the control plane has not sent it", name)
	}
	return source, nil
}

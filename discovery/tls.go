package discovery

import "slices"

// Equal reports whether connections made under t may be used under u.
func (t *UpstreamTLS) Equal(u *UpstreamTLS) bool {
	if t == nil || u == nil {
		return t == u
	}
	return t.IdentityInstance == u.IdentityInstance && t.RootInstance == u.RootInstance && t.SystemRoots == u.SystemRoots &&
		t.SNI == u.SNI && slices.Equal(t.ALPN, u.ALPN) && t.TLSParams.equal(&u.TLSParams) &&
		slices.EqualFunc(t.SANs, u.SANs, equalMatch) &&
		slices.EqualFunc(t.Names, u.Names, func(a, b NameMatch) bool {
			return a.Type == b.Type && a.OID == b.OID && equalMatch(a.StringMatch, b.StringMatch)
		})
}

func equalMatch(a, b StringMatch) bool {
	return a.Kind == b.Kind && a.Value == b.Value && a.IgnoreCase == b.IgnoreCase &&
		(a.Regex == nil) == (b.Regex == nil) && (a.Regex == nil || a.Regex.Source == b.Regex.Source)
}

func (p *TLSParams) equal(q *TLSParams) bool {
	return p.MinVersion == q.MinVersion && p.MaxVersion == q.MaxVersion &&
		slices.Equal(p.CipherSuites, q.CipherSuites) && slices.Equal(p.Curves, q.Curves) &&
		slices.Equal(p.Certificates, q.Certificates) && slices.Equal(p.Keys, q.Keys) &&
		p.IdentitySecret == q.IdentitySecret && p.RootSecret == q.RootSecret &&
		p.bundlesKey() == q.bundlesKey() && p.Revocation.Key() == q.Revocation.Key()
}

func (p *TLSParams) bundlesKey() string {
	if p.Bundles == nil {
		return ""
	}
	return p.Bundles.RootsKey
}

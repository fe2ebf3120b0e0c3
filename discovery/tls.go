package discovery

import "slices"

// Equal reports whether connections made under t may be used under u.
func (t *UpstreamTLS) Equal(u *UpstreamTLS) bool {
	if t == nil || u == nil {
		return t == u
	}
	return t.IdentityInstance == u.IdentityInstance && t.RootInstance == u.RootInstance &&
		t.SNI == u.SNI && slices.Equal(t.ALPN, u.ALPN) &&
		slices.EqualFunc(t.SANs, u.SANs, func(a, b StringMatch) bool {
			return a.Kind == b.Kind && a.Value == b.Value && a.IgnoreCase == b.IgnoreCase &&
				(a.Regex == nil) == (b.Regex == nil) && (a.Regex == nil || a.Regex.Source == b.Regex.Source)
		})
}

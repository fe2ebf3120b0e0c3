package token

import (
	"encoding/base64"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// MaxSize is how many bytes a token may have.
const MaxSize = 32 << 10

// supported are the algorithms that some key can have.
var supported = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA, jose.HS256, jose.HS384, jose.HS512,
}

// Token is what a token says. Nothing of it is true before Verify has found the
// key that signed it. Immutable.
type Token struct {
	// KeyID is the header's kid, "" without one.
	KeyID string
	// Issuer and Subject are "" if the token does not say.
	Issuer, Subject string
	// Audiences is nil if the token does not say.
	Audiences []string
	// Expiry, NotBefore and IssuedAt are zero if the token does not say.
	Expiry, NotBefore, IssuedAt time.Time
	// Header and Claims are the two objects. They must not be changed.
	Header, Claims map[string]any
	// Payload is the claims as they stand in the token, base64url without padding.
	Payload string

	algorithm jose.SignatureAlgorithm
	raw       string
}

// Parse reads a token. It does not verify it.
func Parse(raw string) (*Token, Status) {
	if len(raw) > MaxSize {
		return nil, TooLarge
	}
	// Counted and not split: a megabyte of dots must not become as many parts.
	if strings.Count(raw, ".") != 2 {
		return nil, BadFormat
	}
	head, rest, _ := strings.Cut(raw, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	t := &Token{Payload: payload, raw: raw}
	if status := t.readHeader(head); status != OK {
		return nil, status
	}
	if status := t.readPayload(payload); status != OK {
		return nil, status
	}
	if _, ok := decode(signature); !ok {
		return nil, SignatureBadForm
	}
	return t, OK
}

// encoding accepts one spelling of each value only, so that no token has two.
var encoding = base64.RawURLEncoding.Strict()

// decode is encoding.DecodeString without the line breaks that it skips. Nothing
// may be empty.
func decode(part string) ([]byte, bool) {
	if part == "" || strings.ContainsAny(part, "\r\n") {
		return nil, false
	}
	decoded, err := encoding.DecodeString(part)
	return decoded, err == nil
}

func (t *Token) readHeader(part string) Status {
	data, ok := decode(part)
	if !ok {
		return HeaderBadBase64
	}
	header, err := object(data)
	if err != nil {
		return HeaderBadJSON
	}
	t.Header = header
	algorithm, ok := header["alg"].(string)
	if !ok {
		return HeaderBadAlg
	}
	t.algorithm = jose.SignatureAlgorithm(algorithm)
	if !slices.Contains(supported, t.algorithm) {
		return UnsupportedAlg
	}
	if t.KeyID, ok = optionalText(header, "kid"); !ok {
		return HeaderBadKeyID
	}
	for _, name := range []string{
		"crit", "b64", // no extension is understood (RFC 7515, section 4.1.11; RFC 7797)
		"enc", "zip", "epk", // encryption and compression (RFC 7516)
	} {
		if _, ok := header[name]; ok {
			return BadFormat
		}
	}
	kind, ok := optionalText(header, "cty")
	if !ok || strings.EqualFold(strings.TrimPrefix(strings.ToLower(kind), "application/"), "jwt") {
		return BadFormat // a token in a token (RFC 7519, section 5.2)
	}
	return OK
}

func (t *Token) readPayload(part string) Status {
	data, ok := decode(part)
	if !ok {
		return PayloadBadBase64
	}
	claims, err := object(data)
	if err != nil {
		return PayloadBadJSON
	}
	t.Claims = claims
	if t.Issuer, ok = optionalText(claims, "iss"); !ok {
		return BadIssuer
	}
	if t.Subject, ok = optionalText(claims, "sub"); !ok {
		return BadSubject
	}
	if _, ok = optionalText(claims, "jti"); !ok {
		return BadID
	}
	if t.Audiences, ok = audiences(claims); !ok {
		return BadAudience
	}
	if t.Expiry, ok = date(claims, "exp"); !ok {
		return BadExpiry
	}
	if t.NotBefore, ok = date(claims, "nbf"); !ok {
		return BadNotBefore
	}
	if t.IssuedAt, ok = date(claims, "iat"); !ok {
		return BadIssuedAt
	}
	return OK
}

// optionalText is a member that must be a text if it is there.
func optionalText(fields map[string]any, name string) (string, bool) {
	value, there := fields[name]
	if !there {
		return "", true
	}
	text, ok := value.(string)
	return text, ok
}

// audiences reads aud, which is a text or a list of texts (RFC 7519, section
// 4.1.3).
func audiences(claims map[string]any) ([]string, bool) {
	value, there := claims["aud"]
	if !there {
		return nil, true
	}
	switch v := value.(type) {
	case string:
		return []string{v}, true
	case []any:
		list := make([]string, len(v))
		for i, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil, false
			}
			list[i] = text
		}
		return list, true
	}
	return nil, false
}

// date reads a NumericDate: seconds since 1970, which may have a fraction. What
// time.Time cannot print is none.
func date(claims map[string]any, name string) (time.Time, bool) {
	value, there := claims[name]
	if !there {
		return time.Time{}, true
	}
	const yearTenThousand = 253402300800
	seconds, ok := value.(float64)
	if !ok || math.IsNaN(seconds) || seconds < 0 || seconds >= yearTenThousand {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*float64(time.Second))), true
}

// Valid tells whether the token may be used now. skew is how far the clocks of
// issuer and verifier may be apart.
func (t *Token) Valid(now time.Time, skew time.Duration) Status {
	switch {
	case !t.NotBefore.IsZero() && now.Add(skew).Before(t.NotBefore),
		// It cannot have been issued later: somebody's clock, or word, is wrong.
		!t.IssuedAt.IsZero() && now.Add(skew).Before(t.IssuedAt):
		return NotYetValid
	case !t.Expiry.IsZero() && !now.Before(t.Expiry.Add(skew)):
		return Expired
	}
	return OK
}

// Verify looks for the key that signed the token. OK means that a key of the
// set did; NoSuchKey that none of them can have, so that a newer set might.
func (t *Token) Verify(keys *Keys) Status {
	if keys.Len() == 0 {
		return NoKeys
	}
	candidates := keys.candidates(t)
	if len(candidates) == 0 {
		return NoSuchKey
	}
	signed, err := jose.ParseSignedCompact(t.raw, []jose.SignatureAlgorithm{t.algorithm})
	if err != nil || len(signed.Signatures) != 1 {
		return BadFormat
	}
	for _, candidate := range candidates {
		if _, err := signed.Verify(candidate.material); err == nil {
			return OK
		}
	}
	return BadSignature
}

// Package tokentest makes good and bad tokens for tests.
package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"time"
)

// Name is the iss of tokens, Audience their aud.
const (
	Name     = "https://issuer.test"
	Audience = "shop"
)

// Issuer signs tokens with an RSA, an elliptic curve and an Ed25519 key, whose
// key ids are "rsa", "ec" and "ed". Safe for concurrent use.
type Issuer struct {
	// Name is the iss of its tokens.
	Name string
	RSA  *rsa.PrivateKey
	EC   *ecdsa.PrivateKey
	Ed   ed25519.PrivateKey
}

// New returns an issuer with fresh keys.
func New(name string) *Issuer {
	i := &Issuer{Name: name}
	var err error
	if i.RSA, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	if i.EC, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	if _, i.Ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	return i
}

// Object is a JSON object.
type Object = map[string]any

// Keys is the issuer's key set.
func (i *Issuer) Keys() string {
	return KeySet(i.RSAKey("rsa"), i.ECKey("ec"), i.EdKey("ed"))
}

// KeySet is a key set of the given keys.
func KeySet(keys ...Object) string { return text(Object{"keys": keys}) }

// RSAKey is the public RSA key under a key id, which may be "".
func (i *Issuer) RSAKey(id string) Object {
	return withID(id, Object{
		"kty": "RSA", "n": Encode(i.RSA.N.Bytes()), "e": Encode(big.NewInt(int64(i.RSA.E)).Bytes()),
	})
}

// ECKey is the public elliptic curve key under a key id, which may be "".
func (i *Issuer) ECKey(id string) Object {
	point, err := i.EC.PublicKey.Bytes()
	if err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	return withID(id, Object{"kty": "EC", "crv": "P-256", "x": Encode(point[1:33]), "y": Encode(point[33:])})
}

// EdKey is the public Ed25519 key under a key id, which may be "".
func (i *Issuer) EdKey(id string) Object {
	return withID(id, Object{"kty": "OKP", "crv": "Ed25519", "x": Encode(i.Ed.Public().(ed25519.PublicKey))})
}

func withID(id string, key Object) Object {
	if id != "" {
		key["kid"] = id
	}
	return key
}

// Claims are good claims for an hour, with changes: a nil value removes a claim.
func (i *Issuer) Claims(changes Object) Object {
	now := time.Now()
	return change(Object{
		"iss": i.Name, "sub": "alice", "aud": Audience,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}, changes)
}

func change(object, changes Object) Object {
	maps.Copy(object, changes)
	maps.DeleteFunc(object, func(_ string, value any) bool { return value == nil })
	return object
}

// Token is a good token but for changes of its claims.
func (i *Issuer) Token(changes Object) string {
	return i.SignRSA(Object{"alg": "RS256", "kid": "rsa", "typ": "JWT"}, i.Claims(changes))
}

// SignRSA signs with RS256, whatever the header says.
func (i *Issuer) SignRSA(header, claims Object) string {
	return i.SignRSAText(text(header), text(claims))
}

// SignRSAText is SignRSA for JSON that no encoder writes.
func (i *Issuer) SignRSAText(header, claims string) string {
	input := Encode([]byte(header)) + "." + Encode([]byte(claims))
	sum := sha256.Sum256([]byte(input))
	signature, err := rsa.SignPKCS1v15(nil, i.RSA, crypto.SHA256, sum[:])
	if err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	return input + "." + Encode(signature)
}

// SignEC signs with ES256, whatever the header says.
func (i *Issuer) SignEC(header, claims Object) string {
	input := Encode([]byte(text(header))) + "." + Encode([]byte(text(claims)))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, i.EC, sum[:])
	if err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return input + "." + Encode(signature)
}

// SignEd signs with Ed25519, whatever the header says.
func (i *Issuer) SignEd(header, claims Object) string {
	input := Encode([]byte(text(header))) + "." + Encode([]byte(text(claims)))
	return input + "." + Encode(ed25519.Sign(i.Ed, []byte(input)))
}

// SignSecret signs with HS256, whatever the header says.
func SignSecret(secret []byte, header, claims Object) string {
	input := Encode([]byte(text(header))) + "." + Encode([]byte(text(claims)))
	mac := hmac.New(sha256.New, secret)
	fmt.Fprint(mac, input)
	return input + "." + Encode(mac.Sum(nil))
}

// Encode is base64url without padding.
func Encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	return string(data)
}

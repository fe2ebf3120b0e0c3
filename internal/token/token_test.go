package token_test

import (
	"strings"
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

// check reads and verifies a token as a filter for one issuer does.
func check(t *testing.T, keys *token.Keys, raw string) token.Status {
	t.Helper()
	parsed, status := token.Parse(raw)
	if status != token.OK {
		return status
	}
	if parsed.Issuer != tokentest.Name {
		return token.UnknownIssuer
	}
	for _, audience := range parsed.Audiences {
		if audience == tokentest.Audience {
			if status := parsed.Valid(time.Now(), time.Minute); status != token.OK {
				return status
			}
			return parsed.Verify(keys)
		}
	}
	return token.AudienceForbidden
}

func keysOf(t *testing.T, document string) *token.Keys {
	t.Helper()
	keys, err := token.ParseKeys([]byte(document), true)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestV35_BadTokensAreRefused(t *testing.T) {
	t.Parallel()
	issuer := tokentest.New(tokentest.Name)
	keys := keysOf(t, issuer.Keys())
	if got := check(t, keys, issuer.Token(nil)); got != token.OK {
		t.Fatalf("the good token: %s", got)
	}
	battery := tokentest.Battery(issuer)
	if len(battery) < 100 {
		t.Errorf("the battery has %d tokens", len(battery))
	}
	for _, bad := range battery {
		if got := check(t, keys, bad.Token); got == token.OK {
			t.Errorf("%s: accepted", bad.Name)
		}
	}
}

func TestGoodTokensAreAccepted(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	secret := []byte(strings.Repeat("s", 32))
	keys := keysOf(t, tokentest.KeySet(i.RSAKey("rsa"), i.ECKey("ec"), i.EdKey("ed"), tokentest.Object{
		"kty": "oct", "kid": "secret", "k": tokentest.Encode(secret),
	}))
	type object = tokentest.Object
	for name, raw := range map[string]string{
		"RS256":                      i.Token(nil),
		"RS256 without a key id":     i.SignRSA(object{"alg": "RS256"}, i.Claims(nil)),
		"ES256":                      i.SignEC(object{"alg": "ES256", "kid": "ec"}, i.Claims(nil)),
		"ES256 without a key id":     i.SignEC(object{"alg": "ES256"}, i.Claims(nil)),
		"EdDSA":                      i.SignEd(object{"alg": "EdDSA", "kid": "ed"}, i.Claims(nil)),
		"HS256":                      tokentest.SignSecret(secret, object{"alg": "HS256", "kid": "secret"}, i.Claims(nil)),
		"an audience of several":     i.Token(object{"aud": []string{"bank", tokentest.Audience}}),
		"no expiry":                  i.Token(object{"exp": nil}),
		"an expiry with a fraction":  i.Token(object{"exp": float64(time.Now().Unix()) + 100.5}),
		"expired less than the skew": i.Token(object{"exp": time.Now().Add(-30 * time.Second).Unix()}),
		"nbf within the skew":        i.Token(object{"nbf": time.Now().Add(30 * time.Second).Unix()}),
		"a type of its own":          i.SignRSA(object{"alg": "RS256", "typ": "at+jwt"}, i.Claims(nil)),
		"nested claims":              i.Token(object{"realm": object{"roles": []string{"a"}}}),
	} {
		if got := check(t, keys, raw); got != token.OK {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestKeysOfASet(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	type object = tokentest.Object
	with := func(key object, name string, value any) object {
		key[name] = value
		return key
	}
	private, err := i.EC.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	short := tokentest.New(tokentest.Name)
	short.RSA = tokentest.ShortKey()
	for _, test := range []struct {
		name    string
		key     object
		secrets bool
		want    string // part of why it is not used, "" if it is
	}{
		{"a key for signatures", with(i.RSAKey("a"), "use", "sig"), false, ""},
		{"a key that pins its algorithm", with(i.RSAKey("a"), "alg", "PS512"), false, ""},
		{"a key to verify with", with(i.RSAKey("a"), "key_ops", []string{"verify"}), false, ""},
		{"a key for encryption", with(i.RSAKey("a"), "use", "enc"), false, `use "enc"`},
		{"a key to sign with", with(i.RSAKey("a"), "key_ops", []string{"sign"}), false, `operation "verify"`},
		{"an RSA key with the algorithm of a secret", with(i.RSAKey("a"), "alg", "HS256"), true, `algorithm "HS256"`},
		{"an RSA key with the algorithm of a curve", with(i.RSAKey("a"), "alg", "ES256"), false, `algorithm "ES256"`},
		{"a curve with the algorithm of another", with(i.ECKey("a"), "alg", "ES384"), false, `algorithm "ES384"`},
		{"a key that is not to be used", with(i.RSAKey("a"), "alg", "none"), false, `algorithm "none"`},
		{"a key with its private part", with(i.ECKey("a"), "d", tokentest.Encode(private)), true, "private part"},
		{"a short RSA key", short.RSAKey("a"), false, "1024 bits"},
		{"an RSA key with the exponent 1", with(i.RSAKey("a"), "e", "AQ"), false, "bad e value"},
		{"an RSA key with an even exponent", with(i.RSAKey("a"), "e", "BA"), false, "exponent 4"},
		{"a key without a type", object{"kid": "a"}, false, "missing json web key type"},
		{"a key of an unknown type", object{"kty": "XYZ"}, false, "unsupported"},
		{"a point that is not on its curve", with(i.ECKey("a"), "y", tokentest.Encode(make([]byte, 32))), false, "curve"},
		{"a secret", object{"kty": "oct", "k": tokentest.Encode([]byte(strings.Repeat("s", 64)))}, true, ""},
		{"a secret that was fetched", object{"kty": "oct", "k": tokentest.Encode([]byte(strings.Repeat("s", 64)))}, false, "fetched key set"},
		{"a short secret", object{"kty": "oct", "k": tokentest.Encode([]byte("short"))}, true, "at least 32"},
		{"an empty secret", object{"kty": "oct", "k": ""}, true, "secret"},
		{"a secret of zeros", object{"kty": "oct", "k": tokentest.Encode(make([]byte, 32))}, true, "empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			keys, err := token.ParseKeys([]byte(tokentest.KeySet(test.key)), test.secrets)
			switch {
			case err != nil:
				t.Fatal(err)
			case test.want == "" && keys.Len() != 1:
				t.Fatalf("not used: %v", keys.Unused())
			case test.want != "" && (keys.Len() != 0 || len(keys.Unused()) != 1 || !strings.Contains(keys.Unused()[0].Error(), test.want)):
				t.Fatalf("%d keys, unused %v: want %q", keys.Len(), keys.Unused(), test.want)
			}
			if test.want != "" {
				if got := check(t, keys, i.Token(nil)); got != token.NoKeys {
					t.Errorf("a token is verified by no key: %s", got)
				}
			}
		})
	}
}

func TestDocumentsThatAreNoKeySets(t *testing.T) {
	t.Parallel()
	for name, document := range map[string]string{
		"nothing":             "",
		"no JSON":             "<html>",
		"null":                "null",
		"a list":              "[]",
		"an object without":   "{}",
		"keys that are none":  `{"keys":1}`,
		"keys that are null":  `{"keys":null}`,
		"keys twice":          `{"keys":[],"keys":[]}`,
		"a certificate map":   `{"kid":"-----BEGIN CERTIFICATE-----"}`,
		"too many keys":       `{"keys":[` + strings.Repeat(`{},`, 200) + `{}]}`,
		"too many bytes":      `{"keys":[],"x":"` + strings.Repeat("x", token.MaxKeySet) + `"}`,
		"nested too deep":     `{"keys":[],"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"text after the end":  `{"keys":[]}{}`,
		"an error of a proxy": `{"error":"not found"}`,
	} {
		if keys, err := token.ParseKeys([]byte(document), true); err == nil {
			t.Errorf("%s: %d keys", name, keys.Len())
		}
	}
	keys, err := token.ParseKeys([]byte(`{"keys":[]}`), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := check(t, keys, tokentest.New(tokentest.Name).Token(nil)); got != token.NoKeys {
		t.Errorf("an empty set: %s", got)
	}
}

func TestV35_KeysOfOneIDAreAllTried(t *testing.T) {
	t.Parallel()
	old, now := tokentest.New(tokentest.Name), tokentest.New(tokentest.Name)
	keys := keysOf(t, tokentest.KeySet(old.RSAKey("a"), now.RSAKey("a"), now.ECKey("a")))
	for _, issuer := range []*tokentest.Issuer{old, now} {
		raw := issuer.SignRSA(tokentest.Object{"alg": "RS256", "kid": "a"}, issuer.Claims(nil))
		if got := check(t, keys, raw); got != token.OK {
			t.Errorf("a key of two under one id: %s", got)
		}
	}
	stranger := tokentest.New(tokentest.Name)
	raw := stranger.SignRSA(tokentest.Object{"alg": "RS256", "kid": "a"}, stranger.Claims(nil))
	if got := check(t, keys, raw); got != token.BadSignature {
		t.Errorf("a stranger's key under that id: %s", got)
	}
	pinned := old.RSAKey("a")
	pinned["alg"] = "RS512"
	keys = keysOf(t, tokentest.KeySet(pinned))
	raw = old.SignRSA(tokentest.Object{"alg": "RS256", "kid": "a"}, old.Claims(nil))
	if got := check(t, keys, raw); got != token.NoSuchKey {
		t.Errorf("a key that is for another algorithm: %s", got)
	}
}

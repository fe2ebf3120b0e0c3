package token_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

func TestAKeySetThatCanSignIsKnown(t *testing.T) {
	t.Parallel()
	public := tokentest.New(tokentest.Name).Keys()
	for _, test := range []struct {
		name, document string
		want           bool
	}{
		{"public keys", public, false},
		{"no keys", `{"keys":[]}`, false},
		{"values that are called as private members are", `{"keys":[{"kty":"EC","kid":"d","use":"k","key_ops":["p","q"]}],"alg":"d"}`, false},
		{"a member after a list and an object", `{"keys":[{"x":["k",{"a":"d"}],"y":"k"}]}`, false},
		{"a secret", `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, true},
		{"the private part of a curve beside public keys", strings.Replace(public, `"kty":"EC"`, `"kty":"EC","d":"AA"`, 1), true},
		{"a factor of RSA", `{"keys":[{"kty":"RSA","n":"AA","e":"AQAB","p":"AA"}]}`, true},
		{"a private part of a key that is of a type that is not known", `{"keys":[{"kty":"AKP","priv":"AA"}]}`, true},
		{"a name that is escaped", `{"keys":[{"kty":"oct","\u006b":"c2VjcmV0"}]}`, true},
		{"a name in upper case, which nobody reads", `{"keys":[{"kty":"oct","K":"c2VjcmV0"}]}`, true},
		{"a list of keys that comes twice", `{"keys":[{"kty":"oct","k":"c2VjcmV0"}],"keys":[]}`, true},
		{"a member after a list and an object that is private", `{"keys":[{"x":["a",{"a":"b"}],"d":"AA"}]}`, true},
		{"a secret outside the list", `{"k":"c2VjcmV0","keys":[]}`, true},
		{"no JSON", `secret`, true},
		{"half of a set", `{"keys":[{"kty":"EC"`, true},
		{"more after the set", `{"keys":[]} secret`, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := token.CanSign([]byte(test.document)); got != test.want {
				t.Errorf("can sign: %v, want %v", got, test.want)
			}
		})
	}
}

func TestKeysWithTheirPrivatePartsAreNamed(t *testing.T) {
	t.Parallel()
	i := tokentest.New(tokentest.Name)
	private := func(id, use string) tokentest.Object {
		key := i.ECKey(id)
		key["d"], key["use"] = "AA", use
		return key
	}
	for _, test := range []struct {
		name string
		keys []tokentest.Object
		want string
	}{
		{"public keys and a secret", []tokentest.Object{i.ECKey("a"), {"kty": "oct", "kid": "s", "k": "c2VjcmV0"}}, ""},
		{"a private key after a public one", []tokentest.Object{i.ECKey("a"), private("b", "sig")}, `keys[1] (kid "b"): has its private part with it`},
		{"a private key without an id", []tokentest.Object{private("", "sig")}, `keys[0]: has its private part with it`},
		{
			"private keys that are not for signatures, or of a type that is not known",
			[]tokentest.Object{private("a", "enc"), {"kty": "AKP", "kid": "c", "priv": "AA"}},
			"keys[0] (kid \"a\"): has its private part with it\nkeys[1] (kid \"c\"): has its private part with it",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := errors.Join(token.Private([]byte(tokentest.KeySet(test.keys...)))...); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%s\nwant %s", got, test.want)
			}
		})
	}
	if got := token.Private([]byte("secret")); got != nil {
		t.Errorf("of no key set: %v", got)
	}
}

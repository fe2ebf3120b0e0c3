package token_test

import (
	"testing"
	"time"

	"github.com/inboardmesh/inboard/internal/token"
	"github.com/inboardmesh/inboard/internal/tokentest"
)

func FuzzParse(f *testing.F) {
	issuer := tokentest.New(tokentest.Name)
	f.Add(issuer.Token(nil))
	for _, bad := range tokentest.Battery(issuer) {
		if len(bad.Token) < 4096 {
			f.Add(bad.Token)
		}
	}
	keys, err := token.ParseKeys([]byte(issuer.Keys()), false)
	if err != nil {
		f.Fatal(err)
	}
	stranger, err := token.ParseKeys([]byte(tokentest.New(tokentest.Name).Keys()), false)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		parsed, status := token.Parse(raw)
		if (parsed == nil) == (status == token.OK) {
			t.Fatalf("token %v and status %s", parsed, status)
		}
		if parsed == nil {
			return
		}
		parsed.Valid(time.Now(), time.Minute)
		parsed.Verify(keys)
		if parsed.Verify(stranger) == token.OK {
			t.Fatal("verified by a key that was never used")
		}
	})
}

func FuzzKeys(f *testing.F) {
	issuer := tokentest.New(tokentest.Name)
	f.Add([]byte(issuer.Keys()))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"X25519","x":""}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-521","x":"AA","y":"AA","d":"AA"}]}`))
	raw := issuer.Token(nil)
	f.Fuzz(func(t *testing.T, document []byte) {
		keys, err := token.ParseKeys(document, true)
		if (keys == nil) == (err == nil) {
			t.Fatalf("keys %v and error %v", keys, err)
		}
		if parsed, status := token.Parse(raw); status == token.OK && err == nil {
			parsed.Verify(keys)
		}
		public, err := token.ParseKeys(document, false)
		if err == nil && public.Len() > keys.Len() {
			t.Fatal("there are more keys without secrets than with them")
		}
	})
}

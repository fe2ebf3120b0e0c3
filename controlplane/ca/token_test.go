package ca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// forge signs claims as the test says.
func forge(t *testing.T, algorithm jose.SignatureAlgorithm, key any, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokensAreRefused(t *testing.T) {
	t.Parallel()
	key := mustKey(t)
	tokens, err := newTokens(key, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := func(change func(*jwt.Claims)) jwt.Claims {
		c := jwt.Claims{
			Issuer:   "spiffe://cluster.local",
			Subject:  "system:serviceaccount:shop:payment",
			Audience: jwt.Audience{"istio-ca"},
			IssuedAt: jwt.NewNumericDate(now),
			Expiry:   jwt.NewNumericDate(now.Add(time.Hour)),
		}
		if change != nil {
			change(&c)
		}
		return c
	}
	es256 := func(change func(*jwt.Claims)) string { return forge(t, jose.ES256, key, claims(change)) }
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	payload, err := json.Marshal(claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(es256(nil), ".")

	for _, tt := range []struct{ name, token, want string }{
		{"good", es256(nil), ""},
		{"one of several audiences", es256(func(c *jwt.Claims) { c.Audience = jwt.Audience{"x", "istio-ca"} }), ""},
		{"clock of the issuer slightly ahead", es256(func(c *jwt.Claims) { c.IssuedAt = jwt.NewNumericDate(now.Add(30 * time.Second)) }), ""},
		{"alg none", encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(payload) + ".", "not a JWT signed with ES256"},
		{"HS256 with the public key as secret", forge(t, jose.HS256, publicPEM, claims(nil)), "not a JWT signed with ES256"},
		{"HS256 with the encoded public key as secret", forge(t, jose.HS256, der, claims(nil)), "not a JWT signed with ES256"},
		{"ES256 with another key", forge(t, jose.ES256, mustKey(t), claims(nil)), "not signed by this CA"},
		{"a key of its own in the header", forgeEmbedded(t, mustKey(t), claims(nil)), "not signed by this CA"},
		{"other claims under a good signature", parts[0] + "." + encode([]byte(strings.Replace(string(payload), "payment", "admin", 1))) + "." + parts[2], "not signed by this CA"},
		{"no signature", parts[0] + "." + parts[1] + ".", "not signed by this CA"},
		{"expired", es256(func(c *jwt.Claims) { c.Expiry = jwt.NewNumericDate(now.Add(-time.Second)) }), "token expired on"},
		{"without expiry", es256(func(c *jwt.Claims) { c.Expiry = nil }), "lacks claim exp or iat"},
		{"without iat", es256(func(c *jwt.Claims) { c.IssuedAt = nil }), "lacks claim exp or iat"},
		{"issued in the future", es256(func(c *jwt.Claims) { c.IssuedAt = jwt.NewNumericDate(now.Add(time.Hour)) }), "issued in the future"},
		{"not valid yet", es256(func(c *jwt.Claims) { c.NotBefore = jwt.NewNumericDate(now.Add(time.Hour)) }), "not valid yet"},
		{"another audience", es256(func(c *jwt.Claims) { c.Audience = jwt.Audience{"api"} }), "invalid audience"},
		{"no audience", es256(func(c *jwt.Claims) { c.Audience = nil }), "invalid audience"},
		{"another trust domain", es256(func(c *jwt.Claims) { c.Issuer = "spiffe://other" }), "invalid issuer"},
		{"no issuer", es256(func(c *jwt.Claims) { c.Issuer = "" }), "invalid issuer"},
		{"subject of a user", es256(func(c *jwt.Claims) { c.Subject = "alice" }), "want system:serviceaccount:NAMESPACE:SERVICE_ACCOUNT"},
		{"subject without an account", es256(func(c *jwt.Claims) { c.Subject = "system:serviceaccount:shop" }), "want system:serviceaccount:"},
		{"subject with a path in it", es256(func(c *jwt.Claims) { c.Subject = "system:serviceaccount:shop:a/sa/b" }), "service account \"a/sa/b\""},
		{"subject with one part too many", es256(func(c *jwt.Claims) { c.Subject = "system:serviceaccount:shop:a:b" }), "service account \"a:b\""},
		{"namespace with a dot", es256(func(c *jwt.Claims) { c.Subject = "system:serviceaccount:shop.x:a" }), "namespace \"shop.x\""},
		{"claims that are no object", forge(t, jose.ES256, key, map[string]any{"exp": "soon"}), "not signed by this CA"},
		{"empty", "", "not a JWT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, expiry, err := tokens.verify(tt.token)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if id.String() != "spiffe://cluster.local/ns/shop/sa/payment" || expiry.Unix() != now.Add(time.Hour).Unix() {
				t.Errorf("got %v until %v", id, expiry)
			}
		})
	}
}

func forgeEmbedded(t *testing.T, key *ecdsa.PrivateKey, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenEndsWithItsLifetime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := mustNew(t, Config{})
		token, err := c.IssueToken("shop", "payment", 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second - time.Nanosecond)
		if _, _, err := c.tokens.verify(token); err != nil {
			t.Errorf("refused before its end: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, _, err := c.tokens.verify(token); err == nil {
			t.Error("accepted after its end")
		}
	})
}

func TestTokenIsNotIssuedForANonsenseAccount(t *testing.T) {
	t.Parallel()
	c := mustNew(t, Config{})
	for _, tt := range []struct {
		namespace, account string
		ttl                time.Duration
		want               string
	}{
		{"", "a", time.Hour, `namespace ""`},
		{"Shop", "a", time.Hour, `namespace "Shop"`},
		{"shop", "", time.Hour, `service account ""`},
		{"shop", "a/b", time.Hour, `service account "a/b"`},
		{"shop", "-a", time.Hour, `service account "-a"`},
		{strings.Repeat("a", 64), "a", time.Hour, "at most 63"},
		{"shop", "a", 0, "lifetime 0s: want at least 1s"},
	} {
		if _, err := c.IssueToken(tt.namespace, tt.account, tt.ttl); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q/%q: got %v, want an error with %q", tt.namespace, tt.account, err, tt.want)
		}
	}
}

func FuzzTokenVerify(f *testing.F) {
	c := mustNew(f, Config{})
	good := mustToken(f, c, "shop", "payment")
	f.Add(good)
	f.Add(good + ".")
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		id, _, err := c.tokens.verify(token)
		if err == nil && id.String() != "spiffe://cluster.local/ns/shop/sa/payment" {
			t.Errorf("token %q became %v", token, id)
		}
	})
}

func FuzzCSR(f *testing.F) {
	good := csrPEM(f, mustKey(f))
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "A", "B"))
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, csr string) {
		if key, err := parseCSR(csr); err == nil && checkKey(key) != nil {
			t.Errorf("key of %q is not acceptable", csr)
		}
	})
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/payment")
	f.Add("spiffe://cluster.local/ns/../sa/payment")
	f.Add("spiffe://a@b/ns/x/sa/y")
	f.Fuzz(func(t *testing.T, uri string) {
		if id, err := ParseIdentity(uri); err == nil && id.String() != uri {
			t.Errorf("%q became %q", uri, id)
		}
	})
}

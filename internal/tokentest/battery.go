package tokentest

import (
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"time"
)

// Bad is a token that must not be accepted from an issuer whose key set is that
// of Issuer.Keys, whose name is Name and of which the audience Audience is
// asked for.
type Bad struct{ Name, Token string }

// Battery is a list of bad tokens (V35, V36): each but for one thing as a good
// one.
func Battery(i *Issuer) []Bad {
	rs := func(changes Object) Object {
		return change(Object{"alg": "RS256", "kid": "rsa", "typ": "JWT"}, changes)
	}
	good := i.Claims(nil)
	other := New(i.Name)
	var list []Bad
	add := func(name, token string) { list = append(list, Bad{name, token}) }
	signed := func(name string, header Object, claims Object) { add(name, i.SignRSA(header, claims)) }
	claimed := func(name string, changes Object) { signed(name, rs(nil), i.Claims(changes)) }

	for _, alg := range []string{"none", "None", "NONE", "nOnE"} {
		header := Encode([]byte(`{"alg":"` + alg + `","typ":"JWT"}`))
		payload := Encode([]byte(text(good)))
		add("alg "+alg+" without a signature", header+"."+payload+".")
		add("alg "+alg+" with the signature of another token", header+"."+payload+"."+strings.Split(i.Token(nil), ".")[2])
	}
	signed("no alg", change(rs(nil), Object{"alg": nil}), good)
	signed("alg null", Object{"alg": nullValue, "kid": "rsa"}, good)
	signed("alg is a number", rs(Object{"alg": 256}), good)
	signed("alg is a list", rs(Object{"alg": []string{"RS256"}}), good)
	signed("alg is empty", rs(Object{"alg": ""}), good)
	signed("alg is unknown", rs(Object{"alg": "RS257"}), good)
	signed("alg in lower case", rs(Object{"alg": "rs256"}), good)
	signed("alg of a longer hash than signed", rs(Object{"alg": "RS512"}), good)
	signed("alg of another padding than signed", rs(Object{"alg": "PS256"}), good)
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		signed(alg+" over a signature by RSA", rs(Object{"alg": alg}), good)
	}
	public, _ := x509.MarshalPKIXPublicKey(&i.RSA.PublicKey)
	for name, secret := range map[string][]byte{
		"PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"DER": public, "modulus": i.RSA.N.Bytes(), "key set": []byte(i.Keys()), "empty": nil,
	} {
		add("HS256 with the RSA public key as secret: "+name, SignSecret(secret, rs(Object{"alg": "HS256"}), good))
	}
	add("ES256 under the RSA key's id", i.SignEC(rs(Object{"alg": "ES256"}), good))
	add("RS256 under the EC key's id", i.SignRSA(rs(Object{"kid": "ec"}), good))
	add("EdDSA under the RSA key's id", i.SignEd(rs(Object{"alg": "EdDSA"}), good))
	add("RS256 that is signed by EC", i.SignEC(rs(nil), good))
	add("ES256 that is signed by RSA", i.SignRSA(rs(Object{"alg": "ES256", "kid": "ec"}), good))
	add("ES256 with r and s zero", zeroEC(good))
	add("another issuer's key under the same id", other.SignRSA(rs(nil), good))
	add("another issuer's key and no id", other.SignRSA(rs(Object{"kid": nil}), good))
	signed("unknown kid", rs(Object{"kid": "other"}), good)
	signed("kid is a path", rs(Object{"kid": "../../../dev/null"}), good)
	signed("kid is SQL", rs(Object{"kid": "x' UNION SELECT 'secret"}), good)
	signed("kid is a number", rs(Object{"kid": 1}), good)
	signed("kid is an object", rs(Object{"kid": Object{}}), good)
	signed("kid is a list", rs(Object{"kid": []string{"rsa"}}), good)
	add("brings its own key", other.SignRSA(rs(Object{"kid": "mine", "jwk": other.RSAKey("mine")}), good))
	add("brings its own key under a known id", other.SignRSA(rs(Object{"jwk": other.RSAKey("rsa")}), good))
	add("brings the URL of its keys", other.SignRSA(rs(Object{"jku": "https://evil.test/keys"}), good))
	add("brings the URL of its certificate", other.SignRSA(rs(Object{"x5u": "https://evil.test/cert"}), good))
	signed("crit exp", rs(Object{"crit": []string{"exp"}, "exp": 1}), good)
	signed("crit b64", rs(Object{"crit": []string{"b64"}, "b64": true}), good)
	signed("crit empty", rs(Object{"crit": []string{}}), good)
	signed("b64 false without crit", rs(Object{"b64": false}), good)
	signed("b64 false", rs(Object{"b64": false, "crit": []string{"b64"}}), good)
	signed("says that it is encrypted", rs(Object{"enc": "A128GCM"}), good)
	signed("says that it is compressed", rs(Object{"zip": "DEF"}), good)
	signed("holds a token", rs(Object{"cty": "JWT"}), good)
	signed("holds a token, by its media type", rs(Object{"cty": "application/jwt"}), good)

	t := i.Token(nil)
	parts := strings.Split(t, ".")
	add("only a header", parts[0])
	add("without a signature", parts[0]+"."+parts[1])
	add("with an empty signature", parts[0]+"."+parts[1]+".")
	add("with an empty payload", parts[0]+".."+parts[2])
	add("with an empty header", "."+parts[1]+"."+parts[2])
	add("four parts", t+".x")
	add("five parts, as an encrypted one", t+".x.y")
	add("a megabyte of dots", strings.Repeat(".", 1<<20))
	add("a token before a megabyte of dots", t+strings.Repeat(".", 1<<20))
	add("a megabyte of claims", i.Token(Object{"big": strings.Repeat("x", 1<<20)}))
	add("with padding", parts[0]+"."+parts[1]+"."+parts[2]+"==")
	add("in the other alphabet", base64.RawStdEncoding.EncodeToString([]byte("{\"alg\":\"RS256\",\"\xfb\xff\":1}"))+"."+parts[1]+"."+parts[2])
	add("with a line break", parts[0]+"."+parts[1]+"."+parts[2][:10]+"\n"+parts[2][10:])
	add("with a space", parts[0]+"."+parts[1]+"."+parts[2][:10]+" "+parts[2][10:])
	add("with trailing bits", trailingBits(parts))
	add("with a changed payload", parts[0]+"."+Encode([]byte(text(i.Claims(Object{"sub": "root"}))))+"."+parts[2])
	add("with a changed header", Encode([]byte(`{"alg":"RS256","kid":"rsa","x":1}`))+"."+parts[1]+"."+parts[2])
	add("with a cut signature", t[:len(t)-4])
	add("with another signature", parts[0]+"."+parts[1]+"."+strings.Split(i.Token(Object{"sub": "bob"}), ".")[2])
	add("with the signature twice", t+parts[2])
	add("JSON serialization", `{"payload":"`+parts[1]+`","protected":"`+parts[0]+`","signature":"`+parts[2]+`"}`)
	add("a zip bomb", Encode([]byte(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`))+".."+Encode(make([]byte, 12))+"."+Encode(deflated())+"."+Encode(make([]byte, 16)))

	add("header is no JSON", i.SignRSAText(`{"alg":"RS256",`, text(good)))
	add("header is a list", i.SignRSAText(`["RS256"]`, text(good)))
	add("header is null", i.SignRSAText(`null`, text(good)))
	add("header has alg twice", i.SignRSAText(`{"alg":"none","alg":"RS256","kid":"rsa"}`, text(good)))
	add("header has text after it", i.SignRSAText(`{"alg":"RS256","kid":"rsa"}{}`, text(good)))
	head := text(rs(nil))
	add("payload is no JSON", i.SignRSAText(head, `not json`))
	add("payload is a list", i.SignRSAText(head, `[`+text(good)+`]`))
	add("payload is a text", i.SignRSAText(head, `"`+i.Name+`"`))
	add("payload is null", i.SignRSAText(head, `null`))
	add("payload has text after it", i.SignRSAText(head, text(good)+"x"))
	add("payload has iss twice", i.SignRSAText(head, `{"iss":"x",`+text(good)[1:]))
	add("payload has exp twice", i.SignRSAText(head, `{"exp":1,`+text(good)[1:]))
	add("payload is nested 100 deep", i.SignRSAText(head, `{"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`,`+text(good)[1:]))

	claimed("no iss", Object{"iss": nil})
	claimed("another iss", Object{"iss": "https://other.test"})
	claimed("iss with a slash more", Object{"iss": i.Name + "/"})
	claimed("iss in capitals", Object{"iss": strings.ToUpper(i.Name)})
	claimed("iss is a list", Object{"iss": []string{i.Name}})
	claimed("iss is a number", Object{"iss": 1})
	claimed("sub is a number", Object{"sub": 1})
	claimed("sub is an object", Object{"sub": Object{"id": 1}})
	claimed("jti is a number", Object{"jti": 1})
	claimed("no aud", Object{"aud": nil})
	claimed("aud is empty", Object{"aud": ""})
	claimed("aud is an empty list", Object{"aud": []string{}})
	claimed("aud is another", Object{"aud": "bank"})
	claimed("aud is a list of others", Object{"aud": []string{"bank", "shopping", "shop "}})
	claimed("aud is a number", Object{"aud": 1})
	claimed("aud is an object", Object{"aud": Object{Audience: true}})
	claimed("aud is a list with a number", Object{"aud": []any{Audience, 1}})
	claimed("aud is a list in a list", Object{"aud": []any{[]string{Audience}}})
	claimed("aud is true", Object{"aud": true})

	now := time.Now()
	claimed("expired", Object{"exp": now.Add(-2 * time.Hour).Unix()})
	claimed("exp is zero", Object{"exp": 0})
	claimed("exp is negative", Object{"exp": -1})
	claimed("exp is a text", Object{"exp": "4102444800"})
	claimed("exp is true", Object{"exp": true})
	claimed("exp is a list", Object{"exp": []any{4102444800}})
	rest := text(i.Claims(Object{"exp": nil}))[1:]
	add("exp is null", i.SignRSAText(head, `{"exp":null,`+rest))
	add("exp is 1e400", i.SignRSAText(head, `{"exp":1e400,`+rest))
	add("exp is 1e300", i.SignRSAText(head, `{"exp":1e300,`+rest))
	add("exp is NaN", i.SignRSAText(head, `{"exp":NaN,`+rest))
	add("exp is infinite", i.SignRSAText(head, `{"exp":Infinity,`+rest))
	add("exp overflows 64 bits", i.SignRSAText(head, `{"exp":18446744073709551617,`+rest))
	claimed("nbf in the future", Object{"nbf": now.Add(2 * time.Hour).Unix(), "exp": now.Add(3 * time.Hour).Unix()})
	claimed("nbf is a text", Object{"nbf": "0"})
	claimed("nbf is negative", Object{"nbf": -1})
	claimed("iat in the future", Object{"iat": now.Add(2 * time.Hour).Unix(), "exp": now.Add(3 * time.Hour).Unix()})
	claimed("iat is a text", Object{"iat": "0"})
	return list
}

// zeroEC is CVE-2022-21449, the psychic signature.
func zeroEC(claims Object) string {
	return Encode([]byte(`{"alg":"ES256","kid":"ec"}`)) + "." + Encode([]byte(text(claims))) + "." + Encode(make([]byte, 64))
}

// trailingBits spells the same signature another way: the last character of
// 256 bytes has four bits that mean nothing.
func trailingBits(parts []string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	signature := parts[2]
	last := strings.IndexByte(alphabet, signature[len(signature)-1])
	return parts[0] + "." + parts[1] + "." + signature[:len(signature)-1] + alphabet[last|1:last|1+1]
}

func deflated() []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write(bytes.Repeat([]byte("x"), 10<<20))
	_ = w.Close()
	return b.Bytes()
}

// ShortKey is an RSA key that is too short to be trusted.
func ShortKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // that it is short is its purpose
	if err != nil {
		panic(err) //nolint:forbidigo // no test can go on
	}
	return key
}

// nullValue is written as null, where nil would remove a member.
var nullValue *int

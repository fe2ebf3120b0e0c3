// Package token reads JSON Web Tokens and tells whether a key of a set has signed
// them. It decides nothing about a request: whose tokens are accepted where is
// for the filter that uses it.
//
// What is read is foreign. Sizes and nesting are bounded, JSON is strict
// (duplicate names, text after the end and numbers that are none are refused),
// and a token is one thing only: a JWS in compact form with one signature,
// whose payload is an object. Encrypted tokens, nested tokens, detached and
// unencoded payloads and every extension that must be understood ("crit") are
// refused.
//
// The algorithm is the key's and never the token's: an RSA key verifies RSA
// signatures, an elliptic curve the one algorithm of that curve, a secret HMACs.
// "none" is no algorithm. Keys that a token brings along (jwk, jku, x5c, x5u)
// are not looked at.
//
// Signatures are verified by go-jose.
package token

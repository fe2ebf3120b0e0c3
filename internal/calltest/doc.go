// Package calltest has what the tests of HTTP and those of gRPC share: they make the
// same promises, and are held to them by the same means.
package calltest

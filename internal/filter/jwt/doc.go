// Package jwt is the JWT authentication filter: it looks for tokens in a request,
// verifies them, and hands on what they say, in headers and as metadata.
//
// It fails closed. Without keys no token is accepted: not while they are on
// their way, not when they cannot be fetched, not when what was fetched is no
// key set. A request with several tokens needs all of them to be valid, because
// nobody knows which one the application will look at. Headers in which claims
// are handed on belong to the filter: what a caller put there is removed, also
// from requests that need no token.
package jwt

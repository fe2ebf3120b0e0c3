// Package arrival is what a server makes of a request's headers before anything
// else looks at them: how large they may be, which of them can be believed, who
// the client is, and what the application is told of it. HTTP and gRPC servers
// share it.
//
// The rules are Envoy's (its documentation of the HTTP connection manager,
// "HTTP header sanitizing"), and where those believe whoever connects they are
// stricter: only a peer that mutual TLS has verified is a member of the mesh.
package arrival

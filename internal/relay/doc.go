// Package relay serves the mesh's configuration to native gRPC in the same
// process: to clients of google.golang.org/grpc/xds and to its servers, the
// guests. It is an xDS server over connections in memory, which speaks the state
// of the world, as grpc-go does.
//
// What it serves is not what the control plane sent but what the mesh made of
// it: the model of package discovery, written anew in the words that grpc-go
// understands. So guests get complete configurations only, over the mesh's one
// stream however many they are, in whatever dialect the control plane speaks; and
// nothing reaches a guest that the mesh itself would not accept.
//
// grpc-go ignores, or rejects, much of what the model holds. Every field of the
// model is therefore one of three:
//
//   - Written, if necessary in other words: a policy of random choice becomes
//     round robin, a path prefix that ends at a slash becomes an expression.
//   - Left out, with a [observe.GuestNote], if calls go where they should without it: headers
//     that are added, copies of requests, timeouts of attempts.
//   - Refused, with a [observe.GuestNote], if something else would happen than was configured:
//     a route that rewrites paths fails its calls, a cluster with pinned
//     certificates is unusable, and a server with a filter that grpc-go cannot
//     enforce is not served.
//
// What is refused fails closed. The guest is sent a resource that it has to
// reject, and whose rejection says why; one that it had before is withdrawn first.
package relay

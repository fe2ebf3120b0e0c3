// Package ads speaks the aggregated discovery service: it subscribes to
// resources over one stream per server, state of the world or delta, acknowledges or
// rejects what comes, and keeps the last accepted version of everything that
// somebody watches.
//
// What it guarantees:
//
//   - A resource that was accepted stays in force until its owner replaces it.
//     A lost stream, a rejected response or an omission from one never takes
//     it away; see [ServerConfig.FailOnDataErrors] for the exception.
//   - Good resources of a response are used even if others in it are bad
//     (gRFC A46); the response is rejected and the rejection names each bad one.
//   - Nothing is concluded from what is missing in a rejected response.
//   - A name that the server never answers for is reported as unknown after
//     15 s on a live stream (gRFC A57), and never while there is no stream.
//   - Another server is asked only when something is missing that the preferred
//     one cannot be asked for, and is left when that one is back (gRFC A71).
//   - The next message is not read before every watcher has taken the last one.
//
// The rules are those of Envoy's "xDS REST and gRPC protocol" (xds_protocol)
// and of gRFCs A27, A40, A46, A47, A53, A57, A71 and A88.
package ads

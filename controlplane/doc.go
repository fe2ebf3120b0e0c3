// Package controlplane is a control plane in one value: an xDS server that is
// configured by Istio's own YAML, and the certificate authority beside it. It
// runs in a test, in an application, or as the command "inboard
// control-plane".
//
// [New] reads the configuration, from a directory that is watched or from
// memory ([Server.Update]), and refuses to start with a bad one. From then on
// a good change is pushed to the clients that it concerns, and of it only the
// resources that changed; a bad one changes nothing and is reported, once,
// with file, line and field, in the log and in [Server.Status]. So is a file that has
// become empty, and a directory without a file: who wants that removes the file, or
// starts the control plane anew. A file that is replaced at once, by a rename or a link,
// is read after 50 ms; one that is written where it is when nobody has written for a
// second, or for five if documents are gone; and none later than 10 s after it began to
// change. [Server.Push] serves
// resources that a program made instead.
//
// # What is served
//
// Aggregated discovery (ADS), delta and state of the world, in the dialect
// that istiod speaks to proxyless gRPC: package istio tells the names. A
// resource's version is a hash of its content, so versions survive a restart.
//
//   - Delta: a name that does not exist is in removed_resources at once; a
//     name that is subscribed again is sent again; initial_resource_versions
//     are believed.
//   - State of the world: for Listener and Cluster an answer holds everything
//     that is subscribed, and what is missing in it does not exist; for the
//     others it holds what changed. The first request of a type on a stream is
//     always answered, whatever version it names: the client may have dropped
//     resources while it was disconnected.
//   - Clusters and their endpoints that leave the configuration are served
//     for another second, so that the routes that still name them are
//     replaced before they go (make before break).
//
// A client is sent one response of a type and no other until it has answered that,
// accepted or not; what changes meanwhile is in the next one, as it is then. So a
// client that is slow holds up nobody and has nothing queued, and one that says
// nothing for two minutes is told to come again.
//
// The listeners of [Server.Serve] have bounds on streams and on connections
// ([Config.MaxStreams], [Config.MaxConnections]): who connects and says nothing makes
// room for others.
//
// [Server.Status] shows each client, what it is subscribed to, and what it rejects:
// which resource, and why. [Server.StatusHandler] serves that, counts for Prometheus,
// and health; "inboard status" prints it.
//
// The stream loops are go-control-plane's; what to answer is decided here.
//
// # Who may ask
//
// On the secure listener a stream needs a client certificate of the CA, or a
// token of it, and the node that the stream names must be the caller: its
// metadata NAMESPACE must be that of the identity, and so must SERVICE_ACCOUNT
// if it is there. Otherwise the answer is PermissionDenied, as with istiod. A
// client may offer both proofs; a stream ends, as Unauthenticated, when the one
// that lives longer expires, and a connection when none is left on it.
// The plaintext listener asks for nothing: whoever reaches it reads the
// configuration as any workload. A node that names no NAMESPACE there, and has
// none in a node ID of Istio's form, gets listeners as strict as any policy of
// the mesh asks for. The plaintext listener is not there unless it is given; keep it on
// loopback. The CA is never offered on it.
package controlplane

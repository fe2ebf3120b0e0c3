// Package bootstrap reads what a process must know before it can ask a control
// plane for anything: where the control plane is, how to prove who is asking,
// and where certificates come from.
//
// The format is gRPC's JSON bootstrap (gRFC A27, A29, A36, A65, A97), so the
// file that configures gRPC's own xDS configures the mesh. One key is ours,
// "api_type" of a server. A [Config] can also be written in Go; then
// [Config.Validate] makes the same checks as [Parse].
//
// Every mistake is reported, all of them at once, each with its JSON path and
// what was expected:
//
//	bootstrap: $.xds_servers[0].channel_creds[0].type: expected a string, found a number
//	$.node.locality: expected an object, found an array
//
// Unknown keys are ignored as gRPC does, except where ignoring one would
// change who is trusted: in the configuration of credentials and of file
// certificates they are mistakes. A key that looks like a known one that is not
// there is a mistake everywhere. No error and no String method shows the
// configuration of a credential.
package bootstrap

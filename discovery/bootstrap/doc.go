// Package bootstrap reads what a process must know before it can ask a control
// plane for anything: where the control plane is, how to prove who is asking,
// and where certificates come from.
//
// The format is gRPC's JSON bootstrap (gRFC A27, A29, A36, A47, A65, A71, A97), so the
// file that configures gRPC's own xDS configures the mesh. Two keys are ours:
// "api_type" of a server, and "certificate_provider_instance" of the channel
// credentials "tls". The latter presents the workload's own certificate to the
// control plane, once there is one. It renews itself, so that a token that has
// expired does not keep the stream from being opened again:
//
//	"channel_creds": [{"type": "tls", "config": {
//	  "ca_certificate_file": "/etc/mesh/root.pem",
//	  "certificate_provider_instance": "default"
//	}}]
//
// gRPC ignores both. A [Config] can also be written in Go; then
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
// there is a mistake everywhere, and so is a key that is given twice. No error
// and no String method shows the configuration of a credential.
//
// Files that are named by the bootstrap must be regular files, of at most 64 KiB
// for a token and 16 MiB for certificates and keys.
package bootstrap

// Package nativegrpc lets code that uses google.golang.org/grpc/xds be a guest of
// the mesh in its process: "xds:///" clients and xds.NewGRPCServer get their
// configuration from the mesh, over a connection in memory, and its certificates.
// However many there are, the control plane sees the mesh's one stream.
//
// New code needs none of this: mesh.DialOptions and mesh.ServerOptions carry out
// all of the configuration, and a native client or server only what grpc-go can.
// What that leaves out, or refuses, is logged, is in [mesh.Mesh.Guests] and on the
// page of package admin. Nothing fails open: see docs/native-grpc.md.
//
// There are two ways in. With a [Guest], options say which mesh a channel or a
// server belongs to:
//
//	guest, err := nativegrpc.New(m)
//	conn, err := grpc.NewClient("xds:///payment.shop.svc.cluster.local:9090", guest.DialOptions()...)
//	srv, err := xds.NewGRPCServer(guest.ServerOptions()...)
//
// The functions of grpc-go under it are public, and called "ForTesting" because
// what they make is not in the process-wide registry of CSDS; a new version of
// grpc-go may rename them, which the compiler will tell.
//
// Without changing the code, a bootstrap file does it: grpc-go takes the first
// channel credentials that it knows, and this package makes "inboard" known.
//
//	"xds_servers": [{"server_uri": "istiod.istio-system.svc:15012",
//	  "channel_creds": [{"type": "inboard"}, {"type": "tls"}]}]
//
// A program that calls [New] then has native gRPC come to the mesh, and the mesh
// go to the server with the credentials that follow. Certificate providers of the
// file that only the mesh knows ("istio_ca", "spiffe_workload_api", "sds") are the
// mesh's for its guests as well. The code has to use the credentials of
// google.golang.org/grpc/credentials/xds, as with any control plane: with others
// grpc-go does without the TLS that is configured.
package nativegrpc

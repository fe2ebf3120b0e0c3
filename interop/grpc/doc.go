// Package grpc has the embedded control plane serve gRPC clients that others wrote,
// without Inboard in their process: grpc-go's own xDS, and grpc-js in Node.
//
//	npm ci --prefix node
//	go test .
//
// Without Node, or without what npm installs, the tests of Node are skipped. It is a
// module of its own beside the rest of interop, so that neither waits for the
// other's dependencies.
package grpc

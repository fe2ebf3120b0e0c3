// Package paymentpb is the gRPC service of the examples, generated from
// payment.proto by protoc with protoc-gen-go and protoc-gen-go-grpc:
//
//	protoc --go_out=. --go_opt=paths=source_relative \
//	    --go-grpc_out=. --go-grpc_opt=paths=source_relative payment.proto
package paymentpb

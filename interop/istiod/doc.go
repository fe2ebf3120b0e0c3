// Package istiod has the mesh follow a real istiod, which runs here without
// Kubernetes: its configuration are files, and the part of Kubernetes' API that it
// asks at its start, and for the tokens of workloads, is played by the test.
//
//	GOBIN=$PWD go install istio.io/istio/pilot/cmd/pilot-discovery@v0.0.0-20260827124520-eed52ebb66ad
//	go test . -args -istiod $PWD/pilot-discovery
//
// The first command takes five minutes on two processors, and a gigabyte or two of the
// caches; without -istiod the tests are skipped.
package istiod

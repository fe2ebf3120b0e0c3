package ca_test

import (
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/inboardmesh/inboard/controlplane/ca"
)

// A CA in memory, offered on a gRPC server of one's own.
func ExampleNew() {
	authority, err := ca.New(ca.Config{TrustDomain: "example.org", MaxTTL: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	cert, err := authority.ServerCertificate([]string{"localhost", "127.0.0.1"}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*cert},
		ClientAuth:   tls.RequestClientCert, // the CA verifies it
	})))
	defer server.Stop()
	authority.Register(server)

	for name := range server.GetServiceInfo() {
		fmt.Println(name, "for", authority.TrustDomain())
	}
	// Output: istio.v1.auth.IstioCertificateService for example.org
}

// A token lets a workload ask for its first certificate.
func ExampleCA_IssueToken() {
	authority, err := ca.New(ca.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = authority.IssueToken("shop", "payment", time.Hour)
	fmt.Println(err)
	_, err = authority.IssueToken("Shop", "payment", time.Hour)
	fmt.Println(err)
	// Output:
	// <nil>
	// issue token: namespace "Shop": want a DNS label (lower case letters, digits and '-', at most 63)
}

// A root is changed in three steps, with a certificate lifetime between them.
func ExampleCA_PrepareRotation() {
	authority, err := ca.New(ca.Config{MaxTTL: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	steps := []func() error{
		authority.PrepareRotation, // trusted, from now on
		authority.PromoteRoot,     // an hour later: signs
		authority.FinishRotation,  // an hour later: trusted alone
	}
	for _, step := range steps {
		fmt.Println(step())
	}
	// Output:
	// <nil>
	// <nil>
	// <nil>
}

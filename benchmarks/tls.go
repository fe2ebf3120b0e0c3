package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
)

func certFile(name string) string { return filepath.Join(os.Getenv("BENCH_CERTS"), name) }

// mutualTLS is what a careful application without a mesh has, for both sides.
func mutualTLS(protocols ...string) (*tls.Config, error) {
	account := os.Getenv("BENCH_ACCOUNT")
	certificate, err := tls.LoadX509KeyPair(certFile(account+".pem"), certFile(account+".key"))
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(certFile("root.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, errors.New("root.pem has no certificate")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
		ServerName: "payment", NextProtos: protocols,
	}, nil
}

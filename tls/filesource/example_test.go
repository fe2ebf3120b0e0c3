package filesource_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/inboardmesh/inboard/internal/tlstest"
	"github.com/inboardmesh/inboard/tls/filesource"
)

func ExampleNew() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	writeExample(dir)

	source, err := filesource.New(context.Background(), filesource.Config{
		CertificateFile:   filepath.Join(dir, "cert.pem"),
		PrivateKeyFile:    filepath.Join(dir, "key.pem"),
		CACertificateFile: filepath.Join(dir, "root.pem"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	identity, err := source.Identity()
	fmt.Println(identity.ID, err)
	// Output: spiffe://cluster.local/ns/shop/sa/payment <nil>
}

// Members of each trust domain are verified by its own roots.
func ExampleNew_bundleMap() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "bundles.json")
	bundles := tlstest.BundleMap(map[string][]*tlstest.CA{
		"cluster.local": {tlstest.NewCA(must{})}, "partner.example": {tlstest.NewCA(must{}), tlstest.NewCA(must{})},
	})
	if err := os.WriteFile(file, []byte(bundles), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	source, err := filesource.New(context.Background(), filesource.Config{BundleMapFile: file})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	identity, err := source.Identity()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(identity.Bundles()["cluster.local"]), len(identity.Bundles()["partner.example"]))
	// Output: 1 2
}

func ExampleParseConfig() {
	config, err := filesource.ParseConfig([]byte(`{
		"certificate_file": "/certs/cert.pem",
		"private_key_file": "/certs/key.pem",
		"ca_certificate_file": "/certs/root.pem",
		"refresh_interval": "900s"
	}`))
	fmt.Println(config.CertificateFile, config.RefreshInterval, err)

	_, err = filesource.ParseConfig([]byte(`{"certificate_file": "/certs/cert.pem"}`))
	fmt.Println(err)
	// Output:
	// /certs/cert.pem 15m0s <nil>
	// file_watcher: private_key_file: is required with certificate_file
}

// writeExample does the agent's work.
func writeExample(dir string) {
	ca := tlstest.NewCA(must{})
	cert := ca.Workload(must{}, workloadID)
	for name, text := range map[string][]byte{
		"cert.pem": tlstest.CertificatePEM(cert.Certificate...),
		"key.pem":  tlstest.KeyPEM(must{}, cert),
		"root.pem": tlstest.CertificatePEM(ca.Certificate.Raw),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			panic(err)
		}
	}
}

type must struct{}

func (must) Helper()           {}
func (must) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

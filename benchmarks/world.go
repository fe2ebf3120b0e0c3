package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/inboardmesh/inboard/controlplane"
	"github.com/inboardmesh/inboard/controlplane/ca"
)

// world is what all cases share: certificates, and a control plane in this
// process, which does nothing while a case is measured.
type world struct {
	dir    string
	ca     *ca.CA
	server *controlplane.Server
	// secure and plaintext are the control plane's addresses: for Inboard, and for
	// grpc-go's own xDS.
	secure, plaintext string
	stop              func()
}

func newWorld(ctx context.Context) (_ *world, err error) {
	w := &world{stop: func() {}}
	if w.dir, err = os.MkdirTemp("", "inboard-benchmarks"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := w.writeCertificates(); err != nil {
		return nil, err
	}
	if w.ca, err = ca.New(ca.Config{}); err != nil {
		return nil, err
	}
	if err := w.write("mesh-root.pem", w.ca.RootsPEM()); err != nil {
		return nil, err
	}
	return w, w.startControlPlane(ctx)
}

func (w *world) startControlPlane(ctx context.Context) error {
	var err error
	if w.server, err = controlplane.New(controlplane.Config{CA: w.ca}); err != nil {
		return err
	}
	listen := func() (net.Listener, error) { return (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0") }
	secure, err := listen()
	if err != nil {
		return err
	}
	plaintext, err := listen()
	if err != nil {
		return err
	}
	w.secure, w.plaintext = secure.Addr().String(), plaintext.Addr().String()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.server.Serve(ctx, controlplane.Listeners{Secure: secure, Plaintext: plaintext}) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "benchmarks: control plane:", err)
		}
		_ = w.server.Close() // the process ends
	}
	return w.apply("127.0.0.1:1", "grpc", everything)
}

func (w *world) close() {
	w.stop()
	_ = os.RemoveAll(w.dir) // it is in the system's temporary directory
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, data []byte) error { return os.WriteFile(w.path(name), data, 0o600) }

const service = "payment.shop.svc.cluster.local:80"

// target is what a client of the mesh calls.
func (w *world) target(client kind) string {
	switch {
	case client == grpcXDS:
		return "xds:///" + service
	case client.isGRPC():
		return "mesh:///" + service
	}
	return "http://" + service
}

// env is the environment of a process with an identity.
func (w *world) env(account string) []string {
	return []string{
		"BENCH_CERTS=" + w.dir, "BENCH_ACCOUNT=" + account,
		"GRPC_XDS_BOOTSTRAP_CONFIG=" + w.bootstrap(account, false),
		"BENCH_NATIVE_BOOTSTRAP=" + w.bootstrap(account, true),
		"GOMAXPROCS=" + os.Getenv("GOMAXPROCS"),
	}
}

// bootstrap is that of a workload: with the mesh's CA, or with certificate files
// as grpc-go's own xDS knows them.
func (w *world) bootstrap(account string, native bool) string {
	token, err := w.ca.IssueToken("shop", account, time.Hour)
	if err != nil {
		panic(err) // the CA is this process's own
	}
	tokenFile := w.path(account + ".token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		panic(err) // the directory was made by this process
	}
	type object = map[string]any
	server := object{
		"server_uri":      w.secure,
		"channel_creds":   []object{{"type": "tls", "config": object{"ca_certificate_file": w.path("mesh-root.pem")}}},
		"call_creds":      []object{{"type": "jwt_token_file", "config": object{"jwt_token_file": tokenFile}}},
		"server_features": []string{"xds_v3"},
	}
	provider := object{"plugin_name": "istio_ca", "config": object{
		"server_uri": w.secure, "token_file": tokenFile, "root_file": w.path("mesh-root.pem"),
	}}
	if native {
		server = object{
			"server_uri": w.plaintext, "channel_creds": []object{{"type": "insecure"}}, "server_features": []string{"xds_v3"},
		}
		provider = object{"plugin_name": "file_watcher", "config": object{
			"certificate_file": w.path(account + ".pem"), "private_key_file": w.path(account + ".key"),
			"ca_certificate_file": w.path("root.pem"), "refresh_interval": "600s",
		}}
	}
	b, err := json.Marshal(object{
		"xds_servers": []object{server},
		"node": object{
			"id":       "sidecar~127.0.0.1~" + account + ".shop~shop.svc.cluster.local",
			"metadata": object{"NAMESPACE": "shop", "SERVICE_ACCOUNT": account, "GENERATOR": "grpc"},
		},
		"certificate_providers":                  object{"default": provider},
		"server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
	})
	if err != nil {
		panic(err) // it is plain data
	}
	return string(b)
}

// writeCertificates writes a root, and a certificate of each account with its
// SPIFFE ID, for the cases that have TLS but no mesh.
func (w *world) writeCertificates() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "benchmarks"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if err := w.sign("root", root, root, key, key); err != nil {
		return err
	}
	for i, account := range []string{"customer", "payment"} {
		leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: account},
			NotBefore: root.NotBefore, NotAfter: root.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			DNSNames:    []string{"payment"},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			URIs:        []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/" + account}},
		}
		if err := w.sign(account, leaf, root, leafKey, key); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) sign(name string, certificate, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, certificate, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for file, data := range map[string][]byte{name + ".pem": certPEM, name + ".key": keyPEM, name + ".both.pem": append(certPEM, keyPEM...)} {
		if err := w.write(file, data); err != nil {
			return err
		}
	}
	return nil
}

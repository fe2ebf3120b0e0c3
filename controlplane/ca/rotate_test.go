package ca

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"

	pb "istio.io/api/security/v1alpha1"
)

// TestRootChangesInThreeSteps follows a workload through a change of the root
// and opens the CA again after each step, as a restart would.
func TestRootChangesInThreeSteps(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	c := mustNew(t, Config{Dir: dir})
	network := serve(t, c)
	token := "Bearer " + mustToken(t, c, "shop", "payment")
	key := mustKey(t)

	renew := func(who caller) (*tls.Certificate, []*x509.Certificate) {
		t.Helper()
		chain, err := who.create(t, network, c.Roots(), &pb.IstioCertificateRequest{Csr: csrPEM(t, key)})
		if err != nil {
			t.Fatal(err)
		}
		certs := parseChain(t, chain)
		return &tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key, Leaf: certs[0]}, certs[1:]
	}
	sameAfterRestart := func() {
		t.Helper()
		again := mustNew(t, Config{Dir: dir})
		if !bytes.Equal(again.RootsPEM(), c.RootsPEM()) || !again.authority.Load().signer.cert.Equal(c.authority.Load().signer.cert) {
			t.Error("a restart changes the roots")
		}
	}

	first, roots := renew(caller{tokens: []string{token}})
	oldRoot := roots[0]

	if err := c.PromoteRoot(); !errors.Is(err, errNotReady) {
		t.Errorf("promote before prepare: %v", err)
	}
	if err := c.FinishRotation(); !errors.Is(err, errOneRoot) {
		t.Errorf("finish before prepare: %v", err)
	}
	if err := c.PrepareRotation(); err != nil {
		t.Fatal(err)
	}
	if err := c.PrepareRotation(); !errors.Is(err, errPrepared) {
		t.Errorf("prepare twice: %v", err)
	}
	if err := c.FinishRotation(); !errors.Is(err, errUnused) {
		t.Errorf("finish before promote: %v", err)
	}
	sameAfterRestart()
	wantMode(t, filepath.Join(dir, "next-ca-key.pem"), 0o600)

	second, roots := renew(caller{cert: first})
	if len(roots) != 2 || !roots[0].Equal(oldRoot) {
		t.Fatalf("%d roots, want the old one first and the new one", len(roots))
	}
	newRoot := roots[1]
	if err := second.Leaf.CheckSignatureFrom(oldRoot); err != nil {
		t.Errorf("the new root signs before it is promoted: %v", err)
	}

	if err := c.PromoteRoot(); err != nil {
		t.Fatal(err)
	}
	sameAfterRestart()
	if _, err := os.Stat(filepath.Join(dir, "next-ca-key.pem")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("next key is still there: %v", err)
	}
	third, roots := renew(caller{cert: second}) // signed by the old root, still trusted
	if len(roots) != 2 || !roots[0].Equal(newRoot) {
		t.Fatalf("%d roots, want the new one first and the old one", len(roots))
	}
	if err := third.Leaf.CheckSignatureFrom(newRoot); err != nil {
		t.Errorf("the old root still signs: %v", err)
	}

	if err := c.FinishRotation(); err != nil {
		t.Fatal(err)
	}
	sameAfterRestart()
	if _, roots = renew(caller{cert: third}); len(roots) != 1 || !roots[0].Equal(newRoot) {
		t.Errorf("%d roots, want the new one alone", len(roots))
	}
	if _, err := (caller{cert: second}).create(t, network, c.Roots(), &pb.IstioCertificateRequest{Csr: csrPEM(t, key)}); err == nil {
		t.Error("a certificate of the root that is gone is accepted")
	}
}

func TestInterruptedPreparationIsStartedAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	c := mustNew(t, Config{Dir: dir})
	// The key was written, and then the process ended.
	if err := directory(dir).saveNext(mustKey(t)); err != nil {
		t.Fatal(err)
	}
	again := mustNew(t, Config{Dir: dir})
	if !bytes.Equal(c.RootsPEM(), again.RootsPEM()) {
		t.Error("the bundle changed")
	}
	if err := again.PrepareRotation(); err != nil {
		t.Fatal(err)
	}
	if err := again.PromoteRoot(); err != nil {
		t.Fatal(err)
	}
}

func TestFailedStepChangesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	c := mustNew(t, Config{Dir: dir})
	before := c.RootsPEM()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.PrepareRotation(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the file system's error", err)
	}
	if !bytes.Equal(c.RootsPEM(), before) {
		t.Error("the bundle changed")
	}
}

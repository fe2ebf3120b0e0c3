package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The names of the files of a CA directory. All but the last two are Istio's.
const (
	rootFile    = "root-cert.pem"
	caCertFile  = "ca-cert.pem"
	caKeyFile   = "ca-key.pem"
	chainFile   = "cert-chain.pem"
	tokenFile   = "token-key.pem" //nolint:gosec // the name of a file, not what is in it
	nextKeyFile = "next-ca-key.pem"
)

// store is where an authority is kept.
type store interface {
	// saveNext keeps the key of a root that is about to be trusted.
	saveNext(key crypto.Signer) error
	// saveRoots replaces the trust bundle at once.
	saveRoots(roots []*x509.Certificate) error
	// promoteNext makes the next key the one that signs, at once.
	promoteNext() error
}

// memory keeps nothing.
type memory struct{}

func (memory) saveNext(crypto.Signer) error        { return nil }
func (memory) saveRoots([]*x509.Certificate) error { return nil }
func (memory) promoteNext() error                  { return nil }

// directory keeps an authority in files.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) saveNext(key crypto.Signer) error {
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	return d.replace(nextKeyFile, data, 0o600)
}

func (d directory) saveRoots(roots []*x509.Certificate) error {
	return d.replace(rootFile, encodeCertificates(roots...), 0o644)
}

func (d directory) promoteNext() error {
	return os.Rename(d.path(nextKeyFile), d.path(caKeyFile))
}

// replace writes a file so that a reader sees the old or the new content,
// whenever the process ends.
func (d directory) replace(name string, data []byte, mode fs.FileMode) error {
	temporary, err := d.temporary(data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, d.path(name)); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}

func (d directory) temporary(data []byte, mode fs.FileMode) (string, error) {
	file, err := os.CreateTemp(string(d), ".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// exists reports whether there is something of that name.
func (d directory) exists(name string) (bool, error) {
	_, err := os.Stat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// open returns the CA in the directory with the key for tokens, after making
// one if there is nothing in it. Of processes that do so together one makes
// it, and the others wait and find it.
func (d directory) open(trustDomain string, now time.Time) (_ *authority, _ *ecdsa.PrivateKey, err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, nil, err
	}
	if err := checkDirectory(string(d)); err != nil {
		return nil, nil, err
	}
	unlock, err := lockDirectory(string(d))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, nil, err
	}
	if len(entries) == 0 {
		if err := d.fill(trustDomain, now); err != nil {
			return nil, nil, err
		}
	}
	a, err := d.load(now)
	if err != nil {
		return nil, nil, err
	}
	key, err := d.tokenKey()
	return a, key, err
}

// checkDirectory refuses a directory in which anybody can replace the keys.
func checkDirectory(name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	// With the sticky bit only the owner of a file can replace it.
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("mode %#o lets everybody replace the keys: run chmod 700 on it", mode.Perm())
	}
	return nil
}

// fill makes a new CA. The root comes last: who finds it, finds a CA.
func (d directory) fill(trustDomain string, now time.Time) error {
	root, err := newRoot(trustDomain, now)
	if err != nil {
		return err
	}
	if err := d.createTokenKey(); err != nil {
		return err
	}
	if err := d.saveNext(root.key); err != nil {
		return err
	}
	if err := d.promoteNext(); err != nil {
		return err
	}
	return d.saveRoots([]*x509.Certificate{root.cert})
}

// load reads the CA in the directory.
func (d directory) load(now time.Time) (*authority, error) {
	roots, err := d.certificates(rootFile)
	if err != nil {
		return nil, err
	}
	key, err := d.key(caKeyFile)
	if err != nil {
		return nil, err
	}
	pluggedIn, err := d.exists(caCertFile)
	if err != nil {
		return nil, err
	}
	if pluggedIn {
		return d.loadPluggedIn(key, roots, now)
	}
	cert := certificateOf(key, roots)
	if cert == nil {
		return nil, fmt.Errorf("%s: no certificate in it has the key of %s (a CA that is not its own root needs %s)",
			d.path(rootFile), caKeyFile, caCertFile)
	}
	a, err := newAuthority(keyPair{cert: cert, key: key}, nil, roots, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(rootFile), err)
	}
	waiting, err := d.exists(nextKeyFile)
	if err != nil || !waiting {
		return a, err
	}
	next, err := d.key(nextKeyFile)
	if err != nil {
		return nil, err
	}
	// Without its certificate the key is left over from a preparation that
	// did not end; the next one replaces it.
	if cert := certificateOf(next, roots); cert != nil {
		a.next = &keyPair{cert: cert, key: next}
	}
	return a, nil
}

func (d directory) loadPluggedIn(key crypto.Signer, roots []*x509.Certificate, now time.Time) (*authority, error) {
	certs, err := d.certificates(caCertFile)
	if err != nil {
		return nil, err
	}
	chain := certs[1:]
	found, err := d.exists(chainFile)
	if err != nil {
		return nil, err
	}
	if found {
		more, err := d.certificates(chainFile)
		if err != nil {
			return nil, err
		}
		chain = append(chain, more...)
	}
	a, err := newAuthority(keyPair{cert: certs[0], key: key}, chain, roots, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(caCertFile), err)
	}
	a.pluggedIn = true
	return a, nil
}

func certificateOf(key crypto.Signer, certs []*x509.Certificate) *x509.Certificate {
	for _, cert := range certs {
		if samePublicKey(cert.PublicKey, key.Public()) {
			return cert
		}
	}
	return nil
}

// check refuses what is missing, and what is no file: to open a pipe would wait
// for who writes it.
func (d directory) check(name string) error {
	info, err := os.Stat(d.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: put it back, or, if nothing of this CA is in use yet, empty the directory to have a new one made", err)
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: is not a regular file", d.path(name))
	}
	return nil
}

func (d directory) certificates(name string) ([]*x509.Certificate, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(d.path(name))
	if err != nil {
		return nil, err
	}
	certs, err := decodeCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(name), err)
	}
	return certs, nil
}

// key reads a private key, if nobody but the owner of the file could.
func (d directory) key(name string) (crypto.Signer, error) {
	if err := d.check(name); err != nil {
		return nil, err
	}
	file, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	// Windows has no such bits: there the directory's access list decides.
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %#o lets others read the key: run chmod 600 on it", d.path(name), mode)
	}
	data, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(name), err)
	}
	key, err := decodeKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(name), err)
	}
	return key, nil
}

// tokenKey reads the key for tokens. A plugged-in CA may come without one; it
// is made on first use.
func (d directory) tokenKey() (*ecdsa.PrivateKey, error) {
	found, err := d.exists(tokenFile)
	if err != nil {
		return nil, err
	}
	if !found {
		if err := d.createTokenKey(); err != nil {
			return nil, err
		}
	}
	signer, err := d.key(tokenFile)
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s: want an ECDSA P-256 key", d.path(tokenFile))
	}
	return key, nil
}

func (d directory) createTokenKey() error {
	key, err := newTokenKey()
	if err != nil {
		return err
	}
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := d.replace(tokenFile, data, 0o600); err != nil {
		return fmt.Errorf("create %s: %w", d.path(tokenFile), err)
	}
	return nil
}

func newTokenKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return key, nil
}

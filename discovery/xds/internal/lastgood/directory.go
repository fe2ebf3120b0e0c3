package lastgood

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	suffix          = ".lastgood"
	temporaryPrefix = ".tmp-"
	// leftover is the age at which a file that was not finished is nobody's.
	leftover = time.Hour
)

// files is what happens in the directory. Tests put one in its place that fails.
type files interface {
	// create makes a new file that only its owner reads and writes.
	create(name string) (file, error)
	rename(from, to string) error
	remove(name string) error
	// sync makes renames last.
	sync() error
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

// directory is where files are kept. It holds the directory open: one that is put
// in its place by somebody else is not looked at.
type directory struct {
	root *os.Root
	path string
	// seat is which file is ours to write, and held open as long as it is.
	seat seat
}

var _ files = (*directory)(nil)

// openDirectory makes the directory if it is not there, and refuses one that others
// may write to.
func openDirectory(path string) (*directory, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unusable{err}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, unusable{err}
	}
	info, err := root.Stat(".")
	if err == nil {
		err = checkOwner(info, "directory", path, "chmod go-w")
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &directory{root: root, path: path}, nil
}

// unusable is an error of the disk, and not a mistake of whoever configured it.
type unusable struct{ error }

// Unwrap returns the reason.
func (u unusable) Unwrap() error { return u.error }

// checkOwner refuses what others could have written. Windows has other means.
func checkOwner(info fs.FileInfo, kind, path, remedy string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s %q has the mode %#o, so that others may write to it: run %s on it", kind, path, mode, remedy)
	}
	if !ownedByUs(info) {
		return fmt.Errorf("%s %q belongs to another user: use one of your own", kind, path)
	}
	return nil
}

func (d *directory) close() error { return errors.Join(d.seat.leave(), d.root.Close()) }

// read returns the content of a file of at most limit bytes. It is an error that
// wraps fs.ErrNotExist if there is none.
func (d *directory) read(name string, limit int64) (data []byte, err error) {
	// Before it is opened, because to open a pipe waits for who writes it.
	info, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkOwner(info, "file", filepath.Join(d.path, name), "chmod 600"); err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("it has %d bytes, more than the %d that are allowed", info.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

func (d *directory) create(name string) (file, error) {
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (d *directory) rename(from, to string) error { return d.root.Rename(from, to) }

func (d *directory) remove(name string) error { return d.root.Remove(name) }

func (d *directory) sync() error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// sweep removes what nobody finished, and what is too old for anybody: the files of
// workloads that do not come back.
func (d *directory) sweep(maxAge time.Duration, now time.Time) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return // what cannot be read here cannot be written either, which is reported
	}
	for _, entry := range entries {
		name := entry.Name()
		limit := max(maxAge, leftover)
		switch {
		case strings.HasPrefix(name, temporaryPrefix) && strings.HasSuffix(name, suffix):
			limit = leftover
		case name == d.seat.file, !strings.HasSuffix(name, suffix) && !strings.HasSuffix(name, lockSuffix):
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || now.Sub(info.ModTime()) <= limit {
			continue
		}
		if strings.HasSuffix(name, lockSuffix) {
			d.sweepLock(name)
			continue
		}
		_ = d.root.Remove(name) // another process may have been quicker
	}
}

// replace writes a file so that whoever reads it finds the old or the new content,
// whenever the process ends.
func replace(d files, name string, write func(io.Writer) error) error {
	temporary := temporaryPrefix + rand.Text() + suffix
	f, err := d.create(temporary)
	if err != nil {
		return reason(err)
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.rename(temporary, name)
	}
	if err != nil {
		_ = d.remove(temporary) // what is left of it is swept one day
		return reason(err)
	}
	return d.sync()
}

// reason is an error without the name of the temporary file, which is another one
// each time.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}

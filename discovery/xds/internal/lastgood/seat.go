package lastgood

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	lockSuffix = suffix + ".lock"
	// maxSeats bounds how many processes of one owner write to one directory.
	maxSeats = 64
)

// seat is the right to write one of the files of an owner. Replicas on one host,
// and a process that starts while the one before it ends, have the same owner and
// may have the same directory: each takes a seat, and so a file, of its own. A seat
// is a lock on a file beside it, which ends with the process however it ends.
type seat struct {
	number int
	file   string // the name of the file; "" without a seat
	lock   *os.File
}

// leave gives the seat to others.
func (s *seat) leave() error {
	if s.lock == nil {
		return nil
	}
	err := s.lock.Close()
	*s = seat{}
	return err
}

// fileName is the name of the file of a seat. The first one has the name that the
// file had when there was only one.
func fileName(owner [sha256.Size]byte, number int) string {
	name := hex.EncodeToString(owner[:8])
	if number > 0 {
		name += "-" + strconv.Itoa(number)
	}
	return name + suffix
}

// foundFile is a file of an owner.
type foundFile struct {
	name     string
	modified time.Time
}

// files are the files of an owner that are there, the one that was written last
// first.
func (d *directory) files(owner [sha256.Size]byte) ([]foundFile, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var files []foundFile
	for _, entry := range entries {
		base, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		_, number, _ := strings.Cut(base, "-")
		n, _ := strconv.Atoi(number) // what is not a number is not the name below
		if n >= maxSeats || entry.Name() != fileName(owner, n) {
			continue
		}
		if info, err := entry.Info(); err == nil { // or it was swept in between
			files = append(files, foundFile{name: entry.Name(), modified: info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b foundFile) int {
		return cmp.Or(b.modified.Compare(a.modified), strings.Compare(a.name, b.name))
	})
	return files, nil
}

// sit takes the first seat that is free.
func (d *directory) sit(owner [sha256.Size]byte) error {
	for number := range maxSeats {
		name := fileName(owner, number)
		lock, err := d.tryLock(strings.TrimSuffix(name, suffix) + lockSuffix)
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock a file in %q: %w", d.path, reason(err))
		}
		d.seat = seat{number: number, file: name, lock: lock}
		return nil
	}
	return fmt.Errorf("%d other processes with this identity keep theirs in directory %q: use one for each", maxSeats, d.path)
}

// errTaken is that another process has the lock.
var errTaken = errors.New("another process has the lock")

// tryLock locks a file, which is made if it is not there. Closing it unlocks it.
func (d *directory) tryLock(name string) (*os.File, error) {
	for {
		// Before it is opened, because to open a pipe waits for who writes it.
		if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%q is not a regular file", filepath.Join(d.path, name))
		}
		f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		// Whoever swept it away in between has left us a lock on nothing.
		ours, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := d.root.Lstat(name); err == nil && os.SameFile(ours, there) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// sweepLock removes a lock that nobody has, while it is ours.
func (d *directory) sweepLock(name string) {
	f, err := d.tryLock(name)
	if err != nil {
		return // somebody has it
	}
	_ = d.root.Remove(name) // nothing is lost if it stays
	_ = f.Close()           // nothing was written
}

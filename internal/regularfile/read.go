// Package regularfile reads files that others write while a process runs: of
// tokens, keys and certificates. A pipe would block the reader, and a device can
// be without an end, so neither is read.
package regularfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	// MaxToken bounds a file with a token, which travels in one header.
	MaxToken = 64 << 10
	// MaxCertificates bounds a file with certificates or a key. The bundle of
	// an operating system has a few hundred kilobytes.
	MaxCertificates = 16 << 20
)

// Read returns the content of a regular file of at most limit bytes, or of one
// that a symbolic link leads to.
func Read(path string, limit int64) (data []byte, err error) {
	// Before it is opened: that alone can block. What cannot be looked at
	// cannot be opened either, with a better error.
	if info, err := os.Stat(path); err == nil {
		if err := check(path, info); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(path, info); err != nil { // it may have been replaced
		return nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("file %q is larger than %d bytes", path, limit)
	}
	return data, nil
}

func check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	kind := "a special file"
	switch mode := info.Mode(); {
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Errorf("file %q is %s: want a regular file", path, kind)
}

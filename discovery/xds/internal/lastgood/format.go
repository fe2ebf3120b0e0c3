package lastgood

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// The file is
//
//	magic, version (2 bytes), owner (32 bytes), label, saved, count,
//	count times: type URL, name, version, seen, value
//	SHA-256 of all that
//
// with numbers in little endian, times in nanoseconds since 1970 in 8 bytes, and
// texts as their length, a varint, and their bytes.
const (
	magic         = "INBOARD-LASTGOOD"
	formatVersion = 1
	// minResource is what an empty resource takes: four lengths and a time.
	minResource = 4 + 8
)

var (
	errNotOurs   = errors.New("it is no file of last known good configuration")
	errTruncated = errors.New("it is damaged: something is missing")
	errChecksum  = errors.New("it is damaged: the checksum is wrong")
)

// Key names a resource.
type Key struct {
	TypeURL string
	Name    string
}

// Resource is a resource as it is kept. It is immutable.
type Resource struct {
	Key

	Version string
	// Value is the encoded message, without its Any.
	Value []byte
	// Seen is when the control plane last stood by it.
	Seen time.Time

	live bool // somebody uses what the control plane sent; it is not in the file
}

// snapshot is the content of a file.
type snapshot struct {
	owner     [sha256.Size]byte
	label     string
	saved     time.Time
	resources []Resource
}

// sizeOf is what a resource takes in the file.
func sizeOf(r *Resource) int64 {
	return int64(textSize(len(r.TypeURL)) + textSize(len(r.Name)) + textSize(len(r.Version)) + 8 + textSize(len(r.Value)))
}

func textSize(n int) int {
	var room [binary.MaxVarintLen64]byte
	return binary.PutUvarint(room[:], uint64(n)) + n
}

// overhead is what a file takes beside its resources.
func (s *snapshot) overhead() int64 {
	return int64(len(magic) + 2 + len(s.owner) + textSize(len(s.label)) + 8 + binary.MaxVarintLen64 + sha256.Size)
}

// encoder writes a file. An error of the writer is kept by bufio until Flush.
type encoder struct {
	to   *bufio.Writer
	sum  hash.Hash
	room []byte // for numbers
}

// encode writes a snapshot.
func encode(w io.Writer, s *snapshot) error {
	sum := sha256.New()
	e := &encoder{sum: sum, to: bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)}
	e.bytes([]byte(magic))
	e.bytes(binary.LittleEndian.AppendUint16(nil, formatVersion))
	e.bytes(s.owner[:])
	e.text(s.label)
	e.time(s.saved)
	e.number(uint64(len(s.resources)))
	for i := range s.resources {
		r := &s.resources[i]
		e.text(r.TypeURL)
		e.text(r.Name)
		e.text(r.Version)
		e.time(r.Seen)
		e.number(uint64(len(r.Value)))
		e.bytes(r.Value)
	}
	if err := e.to.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

func (e *encoder) bytes(b []byte) { _, _ = e.to.Write(b) } // Flush tells

func (e *encoder) number(n uint64) {
	e.room = binary.AppendUvarint(e.room[:0], n)
	e.bytes(e.room)
}

func (e *encoder) text(s string) {
	e.number(uint64(len(s)))
	_, _ = e.to.WriteString(s) // Flush tells
}

func (e *encoder) time(t time.Time) {
	e.room = binary.LittleEndian.AppendUint64(e.room[:0], uint64(t.UnixNano()))
	e.bytes(e.room)
}

// decode reads a file. What it returns shares the memory of data.
func decode(data []byte) (*snapshot, error) {
	if !bytes.HasPrefix(data, []byte(magic)) {
		return nil, errNotOurs
	}
	if len(data) < len(magic)+2+sha256.Size {
		return nil, errTruncated
	}
	// Before the checksum: another version may have another one.
	if got := binary.LittleEndian.Uint16(data[len(magic):]); got != formatVersion {
		return nil, fmt.Errorf("its format is version %d, want %d: it was written by another version of this program", got, formatVersion)
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if got := sha256.Sum256(body); !bytes.Equal(got[:], sum) {
		return nil, errChecksum
	}
	return decodeBody(body[len(magic)+2:])
}

// decodeBody reads what follows the version.
func decodeBody(body []byte) (*snapshot, error) {
	d := &decoder{rest: body}
	s := new(snapshot)
	copy(s.owner[:], d.take(uint64(len(s.owner))))
	s.label = string(d.text())
	s.saved = d.time()
	count := d.number()
	if d.err == nil && count > uint64(len(d.rest)/minResource) {
		d.err = errTruncated // before room is made for them
	}
	if d.err != nil {
		return nil, d.err
	}
	s.resources = make([]Resource, 0, count)
	seen := make(map[Key]struct{}, count)
	for range count {
		r := Resource{
			Key:     Key{TypeURL: string(d.text()), Name: string(d.text())},
			Version: string(d.text()),
			Seen:    d.time(),
			Value:   d.text(),
		}
		if d.err != nil {
			return nil, d.err
		}
		if _, twice := seen[r.Key]; twice {
			return nil, fmt.Errorf("it is damaged: it holds %q twice", r.Name)
		}
		seen[r.Key] = struct{}{}
		s.resources = append(s.resources, r)
	}
	if len(d.rest) > 0 {
		return nil, fmt.Errorf("it is damaged: %d bytes follow its end", len(d.rest))
	}
	return s, nil
}

// decoder reads from rest until the first error.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint64) []byte {
	if d.err == nil && n > uint64(len(d.rest)) {
		d.err = errTruncated
	}
	if d.err != nil {
		return nil
	}
	taken := d.rest[:n:n]
	d.rest = d.rest[n:]
	return taken
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.take(uint64(len(d.rest)) + 1)
		return 0
	}
	d.take(uint64(size))
	return n
}

func (d *decoder) text() []byte { return d.take(d.number()) }

func (d *decoder) time() time.Time {
	b := d.take(8)
	if b == nil {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.LittleEndian.Uint64(b)))
}

package ping

import "encoding/binary"

// What the package knows of HTTP/2's frames (RFC 9113, section 4.1).
const (
	frameHeader = 9
	// prefaceLength is that of what a client begins with (section 3.4).
	prefaceLength = 24

	frameHeaders      = 1
	frameSettings     = 4
	framePushPromise  = 5
	framePing         = 6
	frameContinuation = 9
	flagEndHeaders    = 4
)

// frames follows what a client writes, to know where one frame ends.
type frames struct {
	// left is what has not been written of the preface, or of a frame's payload.
	left   int
	header [frameHeader]byte
	have   int // bytes of header that have been written
	// bound is whether the next frame must follow the last: the first SETTINGS the
	// preface, a CONTINUATION its HEADERS (section 6.10).
	bound bool
	// latest is the latest stream.
	latest uint32
}

func newFrames() frames { return frames{left: prefaceLength, bound: true} }

// between reports whether a frame may be added.
func (f *frames) between() bool { return f.left == 0 && f.have == 0 && !f.bound }

// wrote takes note of what has been written, and says whether a stream began.
func (f *frames) wrote(p []byte) (opened bool) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, len(p))
			f.left -= n
			p = p[n:]
			continue
		}
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have == frameHeader && f.begin() {
			opened = true
		}
	}
	return opened
}

// begin takes note of a frame whose header is complete.
func (f *frames) begin() (opened bool) {
	f.have = 0
	f.left = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
	switch f.header[3] {
	case frameHeaders:
		stream := binary.BigEndian.Uint32(f.header[5:])
		opened = stream > f.latest
		f.latest = max(f.latest, stream)
		fallthrough
	case framePushPromise, frameContinuation:
		f.bound = f.header[4]&flagEndHeaders == 0
	case frameSettings:
		f.bound = false
	}
	return opened
}
